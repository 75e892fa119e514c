"""Webhook secrets are kept encrypted: how people know one stands beside it, and none comes in clear any more.

Those that are there are sealed by `penstock migrate` right after this, which has the key.
"""

from alembic import op

revision = "0016"
down_revision = "0015"

SEALED = """
alter table webhook_endpoints add column secret_hint text;
update webhook_endpoints set secret_hint = right(secret, 4);
alter table webhook_endpoints alter column secret_hint set not null;
comment on column webhook_endpoints.secret is
    'fernet:KEY_ID:TOKEN, under a key of the operator; whsec_… only until the first `penstock migrate` with a key';

create function webhook_secret_is_sealed() returns trigger language plpgsql as $$
begin
    if not starts_with(new.secret, 'fernet:') then
        raise exception using errcode = 'check_violation', message = 'the secret of ' || new.id || ' is not sealed';
    end if;
    return new;
end $$;
create trigger webhook_secret_is_sealed before insert or update of secret on webhook_endpoints
    for each row execute function webhook_secret_is_sealed();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(SEALED)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
