"""Shares and access: slices wait by account, keys have a role, scopes and an end, old batches are found by an index."""

from alembic import op

revision = "0013"
down_revision = "0012"

# Word by word as store/accounts/fair_turns.py has it.
_ACCOUNT = "(case when promoted then '*' when inline is null then tenant else tenant || ' small' end)"

INDEXES = f"""
drop index slices_ready;
drop index slices_waiting;
create index slices_ready on slices (model, lane_rank, {_ACCOUNT}, deadline, id) where state = 'ready';
create index slices_waiting on slices (model, lane_rank, {_ACCOUNT}, deadline, id)
    where state in ('queued', 'ready') and not held;
alter table api_keys
    add column role text not null default 'tenant' check (role in ('tenant', 'viewer')),
    add column scopes text[] not null default array['files', 'batches', 'inference', 'webhooks']
        check (scopes <@ array['files', 'batches', 'inference', 'webhooks']),
    add column expires_at timestamptz;
create index batches_ended on batches (greatest(completed_at, cancelled_at, expired_at, failed_at))
    where state in ('completed', 'cancelled', 'expired', 'failed');
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(INDEXES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
