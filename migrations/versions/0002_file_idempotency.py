"""Files: an upload may carry an Idempotency-Key, as every create may."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table files add column idempotency_key text, add column fingerprint bytea")
    op.execute("""
        create unique index files_idempotent on files (tenant, idempotency_key) where idempotency_key is not null""")


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
