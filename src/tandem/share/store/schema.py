"""The tables. docs/reference/store.md describes each column for readers of the database."""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

VERSION = 5
"""Version of this layout; one with a lower version is brought up to it, one with a higher is left alone."""

METADATA = MetaData()

_BIG = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER column

META = Table(
    "meta",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

EPOCHS = Table(
    "epochs",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("began_at", Float, nullable=False),
    Column("policy", Text, nullable=False, server_default=""),
    Column("setup", Text, nullable=False),  # JSON: policy, estimator, options, snapshot
)

STEPS = Table(
    "steps",
    METADATA,
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    Column("epoch", Integer, ForeignKey("epochs.id"), nullable=False, index=True),
    Column("now", Float, nullable=False),
    Column("events", Text, nullable=False),  # JSON list, see share.codec
    Column("decisions", Text, nullable=False),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("app", Text, nullable=False),
    Column("uid", _BIG, nullable=False),
    Column("class", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("submitted_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("ran_s", Float),
    Column("attempt", Integer, nullable=False),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("cores", Text, nullable=False),
    Column("gpus", Text, nullable=False),
    Column("job", Text, nullable=False),  # JSON, the whole job as it was submitted
)
Index("jobs_by_end", JOBS.c.ended_at)

ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("job", _BIG, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("signal", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)
"""Attempts after which their job waited again; how the last one ended is the job's own row."""

ENVIRONS = Table(
    "environs",
    METADATA,
    Column("id", String(64), primary_key=True),  # SHA-256 of the owner and the text
    Column("environ", Text, nullable=False),  # JSON
)

LAUNCHES = Table(
    "launches",
    METADATA,
    Column("job", _BIG, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("environ", String(64), ForeignKey("environs.id"), nullable=False),
    Column("launch", Text, nullable=False),  # JSON, everything but environ
)

QUOTES = Table(
    "quotes",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("job", _BIG, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("moment", String(16), nullable=False),
    *(
        Column(f"{what}_{bound}", Float, nullable=False)
        for what in ("start", "finish")
        for bound in ("low", "mid", "high")
    ),
    Column("basis", Text, nullable=False),
)

HOLDS = Table(
    "holds",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("job", _BIG, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("at", Float, nullable=False),
)
"""Holds, each by every job of which it took back what was promised: the held one, and those that wait for it."""

CORUNS = Table(
    "coruns",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("job", _BIG, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("app", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("beside", Text, nullable=False),  # JSON list of [job, application key]
    Column("rate", Float),  # steps per second, NULL where the job wrote no records
    Column("throttled", Integer, nullable=False),
)
