"""Which settings are of a kind: those of draws, those that leave no trace in the bits of a model, and where they come from."""

SAMPLING = ("method", "prior", "temperature", "chains", "draws")
"""Settings that say nothing of a run that draws no weights."""

SAMPLED = {"method": "sgld-cv", "polish": 50}
"""What sample sets of its own, unless it is set otherwise."""

RUN_ONLY = frozenset(
    [
        *("memory", "threads", "executor", "cpu", "workers", "scheduler", "straggler", "resume", "time_limit", "io_timeout"),
        *(
            "checkpoint",
            "checkpoint_every",
            "checkpoint_chunks",
            "checkpoint_keep",
            "cache_dir",
            "cache",
            "cache_size",
            "keep_cache",
            "strict",
        ),
    ]
)
"""Settings that may change between a run and its resumption: they do not touch the model."""

PREFIX = "STREAMSGD_"
"""Of environment variables: STREAMSGD_BATCH_SIZE is batch_size."""
