"""A config may have no off variation, and a number flag may declare its format.

A migration is history: it is never edited once released, and does not import the tables as they are today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let `off` be null, and add `number_format`."""
    op.add_column("flags", sa.Column("number_format", sa.Text(), nullable=True))
    # SQLite cannot take NOT NULL off a column: the table is made anew. Nothing refers to it, so nothing cascades.
    with op.batch_alter_table("flag_configs") as batch:
        batch.alter_column("off", existing_type=sa.Text(), nullable=True)
