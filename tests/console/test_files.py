"""Files: uploaded, looked at, downloaded and deleted; and what a tenant may, and how much of it is used."""

from __future__ import annotations

from pathlib import Path

from api.live import KEY, http
from console.admin_desk import HARM, desk, is_inert
from console.browser import Browser, opened
from console.looks import look

LINE = b'{"custom_id":"one","method":"POST","url":"/v1/chat/completions","body":{}}\n'


def test_a_person_uploads_downloads_and_deletes_a_file(
    chromium: Browser, url: str, tenant_key: str, tmp_path: Path
) -> None:
    with opened(chromium, url, tenant_key) as page:
        page.get_by_role("link", name="Files").click()
        page.get_by_role("heading", name="No file yet").wait_for()
        look(page, "files-empty")
        page.get_by_label("File", exact=True).set_input_files({"name": "in.jsonl", "mimeType": "x/y", "buffer": LINE})
        page.get_by_role("button", name="Upload").click()
        page.get_by_text("The file is there, whole.").wait_for()
        look(page, "file")
        file = page.url.partition("/files/")[2].partition("?")[0]
        assert (page.get_by_role("link", name="Make a batch of it").get_attribute("href") or "").endswith(
            f"/batches/new/{file}"
        )
        with page.expect_download() as coming:
            page.get_by_role("link", name="Download").click()
        assert Path(coming.value.path()).read_bytes() == LINE
        page.get_by_role("link", name="Files").first.click()
        look(page, "files-full")
        page.get_by_role("link", name="in.jsonl", exact=True).click()
        page.get_by_text("Delete…").click()
        page.get_by_role("button", name="Delete it").click()
        page.get_by_text("The file is deleted.").wait_for()
        page.goto(f"/console/files/{file}")
        page.get_by_role("alert").wait_for()
        page.get_by_role("link", name="Limits").click()
        page.get_by_text("queued_tokens").wait_for()
        look(page, "limits")


def test_files_of_another_tenant_are_not_there_and_a_viewer_changes_none(
    url: str, tenant_key: str, viewer_key: str
) -> None:
    with http(url, tenant_key) as owner, http(url) as operator:
        own = owner.post("/v1/files", data={"purpose": "batch"}, files={"file": ("own.jsonl", LINE)}).json()["id"]
        foreign = operator.post("/v1/files", data={"purpose": "batch"}, files={"file": ("x", LINE)}).json()["id"]
    with desk(url, tenant_key) as client:
        for path in ("", "/content"):
            assert client.get(f"/console/files/{foreign}{path}").status_code == 404
        assert client.post(f"/console/files/{foreign}/delete").status_code == 404
    with desk(url, viewer_key) as client:
        page = client.get(f"/console/files/{own}").text
        assert "Download" in page
        assert "<form" not in page.partition("<main")[2]
        assert "Upload a file" not in client.get("/console/files").text
        assert client.post(f"/console/files/{own}/delete").status_code == 403
        refused = client.post("/console/files", data={"purpose": "batch"}, files={"file": ("x", LINE)})
        assert refused.status_code == 403


def test_a_files_bytes_are_never_a_page_and_its_name_stays_text(url: str, tenant_key: str) -> None:
    with desk(url, tenant_key) as client:
        for name in HARM:
            form = {"purpose": "user_data"}
            made = client.post("/console/files", data=form, files={"file": (name, b"<script>alert(1)</script>")})
            assert made.status_code == 303, made.text
            place = made.headers["location"].partition("?")[0]
            bytes = client.get(f"{place}/content", headers={"range": "bytes=0-6"})
            assert (bytes.status_code, bytes.content) == (206, b"<script")
            assert bytes.headers["content-disposition"].startswith("attachment")
            assert bytes.headers["content-type"] == "application/octet-stream"
            assert bytes.headers["x-content-type-options"] == "nosniff"
            for path in (place, "/console/files"):
                assert is_inert(client.get(path).text, name)
        wrong = client.post("/console/files", data={"purpose": HARM[0]}, files={"file": ("x", LINE)})
        assert wrong.status_code == 400
        assert 'role="alert"' in wrong.text


def test_limits_show_what_is_set_and_what_is_spent(url: str) -> None:
    with desk(url, KEY) as client, http(url) as operator:
        path = "/v1/admin/tenants/default/limits"
        operator.post(path, json={"files": 9, "monthly_budget": "12.5"}).raise_for_status()
        page = client.get("/console/limits").text
        operator.post(path, json={"files": None, "monthly_budget": None}).raise_for_status()
        assert "Within it." in page
        assert '<td class="n">9</td>' in page
