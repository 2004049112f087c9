"""The demo project: what a newcomer finds, as commands. Data only; `upstream.demo` carries it out.

One flag of every kind that people ask about first: a plain switch, a targeting rule, a segment, a split, a slow ramp,
a kill switch and a flag that needs another one. Each evaluates for any context that has a `targetingKey`.
"""

from collections.abc import Sequence

from upstream.domain.commands import ConfigFields, CreateFlag, CreateSegment
from upstream.domain.entities import FlagKind, FlagType

PROJECT = "demo"
PROJECT_NAME = "Demo"
ENVIRONMENT = "production"
FLAG = "new-checkout"
SEGMENT = "beta-testers"
TARGET = "targetingKey"

ON = ConfigFields(enabled=True)

SEGMENTS: Sequence[CreateSegment] = (
    CreateSegment(
        project=PROJECT,
        key=SEGMENT,
        name="Beta testers",
        description="Everybody of our own, and those who asked for it.",
        include=("ada", "grace"),
        exclude=("mallory",),
        when={"attribute": "email", "op": "ends_with", "values": ["@example.com"]},
    ),
)

# A flag stands behind those that it requires.
FLAGS: Sequence[CreateFlag] = (
    CreateFlag(
        project=PROJECT,
        key=FLAG,
        name="New checkout",
        description="The checkout in one page. On for everybody; switch it off and watch it go.",
        type=FlagType.BOOLEAN,
        tags=("checkout",),
        config=ON,
    ),
    CreateFlag(
        project=PROJECT,
        key="dark-mode",
        name="Dark mode",
        description="On for Germany and Austria, off elsewhere.",
        type=FlagType.BOOLEAN,
        tags=("ui",),
        config=ConfigFields(
            enabled=True,
            fallthrough={"value": False},
            rules=[
                {
                    "name": "German-speaking markets",
                    "when": {"attribute": "country", "op": "in", "values": ["DE", "AT"]},
                    "value": True,
                }
            ],
        ),
    ),
    CreateFlag(
        project=PROJECT,
        key="search-index-v2",
        name="Second search index",
        description="Reaches another 10 % of users every day, everywhere but in production.",
        type=FlagType.BOOLEAN,
        tags=("search",),
        config=ON,
        environments={
            ENVIRONMENT: ConfigFields(
                enabled=True,
                fallthrough={
                    "ramp": {
                        "to_value": True,
                        "else_value": False,
                        "start_at": "2026-01-01T00:00:00Z",
                        "increment": 10_000,
                        "every_s": 86_400,
                        "target": 50_000,
                        "by": TARGET,
                    }
                },
            )
        },
    ),
    CreateFlag(
        project=PROJECT,
        key="banner-text",
        name="Banner text",
        description="Three wordings in a split; a user always sees the same one.",
        type=FlagType.STRING,
        kind=FlagKind.EXPERIMENT,
        tags=("marketing",),
        variations=(
            {"key": "plain", "value": "Welcome"},
            {"key": "warm", "value": "Good to see you"},
            {"key": "bold", "value": "Make something today"},
        ),
        config=ConfigFields(
            enabled=True,
            off="plain",
            fallthrough={"split": {"by": TARGET, "weights": [["plain", 50_000], ["warm", 25_000], ["bold", 25_000]]}},
        ),
    ),
    CreateFlag(
        project=PROJECT,
        key="max-upload-mb",
        name="Upload limit",
        description="Beta testers may send larger files.",
        type=FlagType.NUMBER,
        kind=FlagKind.PERMISSION,
        tags=("uploads",),
        variations=({"key": "standard", "value": 25}, {"key": "large", "value": 500}),
        config=ConfigFields(
            enabled=True,
            off="standard",
            fallthrough={"variation": "standard"},
            rules=[{"name": "Beta testers", "when": {"segment": SEGMENT}, "variation": "large"}],
        ),
    ),
    CreateFlag(
        project=PROJECT,
        key="search-settings",
        name="Search settings",
        description="What the search engine is told, changed without a release.",
        type=FlagType.JSON,
        kind=FlagKind.OPS,
        tags=("search",),
        variations=(
            {"key": "careful", "value": {"page_size": 20, "fuzzy": False, "boost": {"title": 2}}},
            {"key": "generous", "value": {"page_size": 50, "fuzzy": True, "boost": {"title": 3}}},
        ),
        config=ConfigFields(enabled=True, off="careful", fallthrough={"variation": "generous"}),
    ),
    CreateFlag(
        project=PROJECT,
        key="payments",
        name="Payments",
        description="The kill switch of the payment provider: switch it off in an emergency.",
        type=FlagType.BOOLEAN,
        kind=FlagKind.OPS,
        tags=("checkout", "kill-switch"),
        client_side_enabled=False,
        config=ON,
    ),
    CreateFlag(
        project=PROJECT,
        key="one-click-buy",
        name="One-click buy",
        description="Only where payments are on.",
        type=FlagType.BOOLEAN,
        tags=("checkout",),
        prerequisites=({"flag": "payments", "variations": ["on"]},),
        config=ON,
    ),
)
