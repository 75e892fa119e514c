"""Limits: what is set for tenants and keys, a tenant's budget of a month, and why a batch is paused."""

from alembic import op

revision = "0015"
down_revision = "0014"

LIMITS = """
alter table tenants
    add column limits jsonb not null default '{}',
    -- In picounits (10^-12 of the currency) a month (UTC); null: none.
    add column monthly_budget numeric(30) check (monthly_budget >= 0),
    -- What was found when the budget was looked at last: of which month, how much of it, and what followed.
    add column budget_month date,
    add column budget_used numeric(30) not null default 0,
    add column budget_state text check (budget_state in ('warned', 'spent'));
alter table api_keys add column limits jsonb not null default '{}';
alter table batches add column paused_as text check (paused_as in ('by_hand', 'budget'));
update batches set paused_as = 'by_hand' where state = 'paused';
alter table events alter column batch drop not null;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(LIMITS)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
