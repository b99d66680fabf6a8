"""Settings: every choice there is, its default, its range and its help text, in one place.

The command line makes a flag of each field, the environment a STREAMSGD_* variable, a TOML file a key.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Names = tuple[str, ...]

Count = Annotated[int, Meta(ge=1)]

Share = Annotated[float, Meta(ge=0.0, lt=1.0)]

Positive = Annotated[float, Meta(gt=0.0)]

BATCHES = "^(auto|full|adaptive(:.*)?|pilot(:.*)?)$"
"""Sizes of batches that are no numbers."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to learn from which columns, how, and within what limits."""

    target: Annotated[str, Meta(description="Column to predict.")]
    weight: Annotated[str | None, Meta(description="Column of row weights: each row's gradient is multiplied by it.")] = None
    features: Annotated[Names, Meta(description="Columns to learn from, names or globs; all that have no other role.")] = ()
    exclude: Annotated[Names, Meta(description="Columns to leave out, names or globs.")] = ()
    id: Annotated[Names, Meta(description="Columns that identify a row: never learned from, copied to predictions.")] = ()
    filter: Annotated[str | None, Meta(description='Rows to use, e.g. "year >= 2020 and fare > 0".')] = None

    task: Annotated[
        Literal["auto", "regression", "binary", "multiclass", "poisson"],
        Meta(description="Kind of target; auto looks at its type and values."),
    ] = "auto"
    classes: Annotated[Names, Meta(description="Classes of the target, so that the data is not scanned for them.")] = ()
    model: Annotated[
        str,
        Meta(
            description="What makes a score of a row: linear, a weight per value; fm, a factorization machine, which learns "
            "what two values say only together, e.g. fm:k=8; fwfm, one with a weight for each pair of columns; mlp, a small "
            "network, e.g. mlp:hidden=64-32."
        ),
    ] = "linear"
    loss: Annotated[
        str, Meta(description="Loss, e.g. huber:delta=2, focal:gamma=2,alpha=.25 or logistic:adjust=1; auto follows the task.")
    ] = "auto"
    class_weight: Annotated[
        Names,
        Meta(
            description="Weights of classes while learning: balanced, or CLASS=WEIGHT,... (1 for a class that is not named); "
            "the intercept undoes them at the end, so that probabilities are of the data as it is."
        ),
    ] = ()
    keep_weights: Annotated[
        bool, Meta(description="Leave --class-weight in the probabilities, as if there were so many more rows of a class.")
    ] = False
    recalibrate: Annotated[
        Literal["none", "platt", "isotonic"],
        Meta(
            description="Set probabilities right by the rows of --validation, in one more pass: platt, a line of the score, or "
            "isotonic, any rising function; for losses that move the target, such as focal, and hinge."
        ),
    ] = "none"
    rare: Annotated[
        str,
        Meta(
            description="Learn from the rows that matter where positives are rare: targeted:c=20, uniform:c=20, "
            "local-case-control:c=1, or auto, which is targeted for large data with few positives."
        ),
    ] = "none"
    penalty: Annotated[str, Meta(description="Penalty, e.g. l2:l2=1e-4; the intercept is free.")] = "none"
    optimizer: Annotated[
        str,
        Meta(
            description="Optimizer, e.g. adam:beta1=0.8; auto is race in one pass, of counts, and where there are categories "
            "or text, else adam."
        ),
    ] = "auto"
    learning_rate: Annotated[
        Positive | None, Meta(description="Learning rate; each optimizer has its own default, svrg one by the data.")
    ] = None
    schedule: Annotated[
        str,
        Meta(
            description="How the learning rate changes, e.g. cosine:warmup=100; auto is constant row by row, else cosine; "
            "ftrl and coin take none."
        ),
    ] = "auto"
    batch_size: Annotated[
        Count | Annotated[str, Meta(pattern=BATCHES)],
        Meta(
            description="Rows per update: 1 is pure SGD, full is one update per epoch, auto is 64, 8 for svrg, or 1 row by "
            "row; adaptive, e.g. adaptive:theta=0.5, takes rows for a step until their gradients are told from noise; "
            "pilot tries some sizes first, and goes on with the one that is enough."
        ),
    ] = "auto"
    rate_scaling: Annotated[
        Literal["none", "auto", "linear", "sqrt"],
        Meta(description="How the rate, which is for batches of 64, follows --batch-size; auto is the optimizer's own rule."),
    ] = "none"
    clip_norm: Annotated[
        Positive | None, Meta(description="Scale the mean gradient of a batch down to this length; not the penalty's.")
    ] = None
    clip_value: Annotated[Positive | None, Meta(description="Clip every coordinate of it to this size, after --clip-norm.")] = (
        None
    )
    epochs: Annotated[
        Count | Literal["auto"],
        Meta(
            description="Passes over the data; auto makes at least a million row visits, in at most 10, or 3 row by row, or 20 "
            "of svrg, which measures in every other one."
        ),
    ] = "auto"
    steps: Annotated[
        Count | None,
        Meta(
            description="Updates after which the run ends, by batches of a number of rows, in as many passes as that takes, or "
            "in --epochs; an auto schedule is constant then."
        ),
    ] = None
    average: Annotated[
        Annotated[float, Meta(ge=0.0)] | Literal["none", "auto"],
        Meta(
            description="Average the weights after every step from here on, in epochs, e.g. 0.05; auto is a tenth of the run."
        ),
    ] = "none"
    forget: Annotated[
        Count | None,
        Meta(
            description="Rows after which what the optimizer remembers of a row counts half, for data whose meaning drifts, "
            "with --shuffle none; default: all count alike."
        ),
    ] = None
    polish: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Most passes of L-BFGS after the epochs, to the minimum of loss and penalty; 0 or none is none. "
            "Default: auto, up to 20 over small tables of numbers alone, as long as rows held out are the better for it, and "
            "up to 28 over small tables of lists of entries, from a large ridge to a small one.",
        ),
    ] = None
    standard_errors: Annotated[
        bool,
        Meta(
            description="Work out standard errors of the weights in one more pass, by the sandwich estimator; with --polish or "
            "--average."
        ),
    ] = False
    noise: Annotated[
        bool,
        Meta(
            description="Measure while learning how the gradients of rows scatter, on a few rows of every chunk; the weights "
            "are the same. Of networks by all parameters, with no unit left out."
        ),
    ] = False
    method: Annotated[
        str | None,
        Meta(
            description="Draw weights from their posterior once the rest is done, by sgld-cv, sgld, sghmc, laplace or "
            "constant-sgd, e.g. sgld-cv:step=0.02,batch=64; default: only sample does, by sgld-cv."
        ),
    ] = None
    prior: Annotated[
        str, Meta(description="Prior of the encoded weights when sampling, in the place of --penalty, e.g. normal:sd=1.")
    ] = "none"
    temperature: Annotated[
        Positive, Meta(description="Of the posterior that is sampled: its logarithm is divided by this; 1 is the posterior.")
    ] = 1.0
    chains: Annotated[int, Meta(ge=1, le=64, description="Independent chains of draws.")] = 4
    draws: Annotated[
        Count | Literal["auto"],
        Meta(description="Draws that are kept in the model, all chains together; auto is up to 4,000, of many weights fewer."),
    ] = "auto"
    conformal: Annotated[
        bool,
        Meta(
            description="Keep how far predictions are off on the rows of --validation, in one more pass: predict --intervals "
            "then holds outcomes."
        ),
    ] = False
    categorical: Annotated[Names, Meta(description="Columns of integers or others to take as categories, as strings are.")] = ()
    values: Annotated[
        bool,
        Meta(
            description="Store values of the data in the model: those that have weights of their own, and the most frequent of "
            "others, up to 256 bytes each; --no-values hashes all and names none."
        ),
    ] = True
    text: Annotated[Names, Meta(description="String columns to cut into words; sentences are found without this.")] = ()
    ngrams: Annotated[int, Meta(ge=1, le=8, description="Longest sequences of words of a text that count as features.")] = 1
    column_kind: Annotated[
        Names,
        Meta(
            description="A kind of column of your own, package.module:Class, for all columns that it accepts, or "
            "COLUMN=package.module:Class, names or globs."
        ),
    ] = ()
    time_parts: Annotated[
        Names,
        Meta(description="Timestamps whose hour, weekday and month are categories too; ts.hour is for one part of ts alone."),
    ] = ()
    cross: Annotated[
        Names,
        Meta(
            description="Combinations that get weights, e.g. site*device; at most one member may be a number; auto (the "
            "default) takes up to three pairs that a look says pay, none takes none."
        ),
    ] = ()
    bits: Annotated[
        Annotated[int, Meta(ge=8, le=30)] | Literal["auto"],
        Meta(description="Hashed values share 2^bits weights; auto follows the distinct values in the first look."),
    ] = "auto"
    scale: Annotated[
        Names,
        Meta(
            description="standard (the default), none, max-abs or robust, or COLUMN=one: what numbers and regression targets "
            "are centred and divided by."
        ),
    ] = ()
    transform: Annotated[
        Names,
        Meta(
            description="auto (the default), tails, none, log1p or bins, or COLUMN=one: what is done to numbers before "
            "scaling; tails is auto without bins."
        ),
    ] = ()
    missing: Annotated[
        Names,
        Meta(
            description="mean (the default), median, zero, indicator or error, or COLUMN=one: what a null or NaN feature "
            "becomes; indicator is mean and a feature that is 1 there."
        ),
    ] = ()
    sentinels: Annotated[
        Names,
        Meta(
            description="Numbers that stand for missing, as -9999, or COLUMN=-9999; auto (the default) takes those that are "
            "far from all others and come often, and says which; none, or COLUMN=none, takes numbers as they are."
        ),
    ] = ()
    missing_columns: Annotated[
        Literal["error", "null"], Meta(description="A feature that a file lacks: an error, or null in all its rows.")
    ] = "error"
    infinite: Annotated[Literal["error", "missing"], Meta(description="What an infinite feature value is.")] = "error"
    bad_rows: Annotated[
        Literal["error", "skip"], Meta(description="Rows whose target or weight is null, NaN or out of range.")
    ] = "error"
    unreadable: Annotated[Literal["error", "skip"], Meta(description="Row groups that cannot be read.")] = "error"
    precision: Annotated[Literal["float32", "float64"], Meta(description="Of rows and weights.")] = "float32"

    seed: Annotated[int, Meta(ge=0, description="Of all randomness.")] = 0
    shuffle: Annotated[
        str,
        Meta(
            description="Sampler: corgi, external (on disk first), none, block, full-chunk, iid (with replacement) or "
            "stratified; auto is corgi, or external where the target shows that chunks mix too little."
        ),
    ] = "auto"
    cache_dir: Annotated[
        str | None,
        Meta(
            description="Folder in which shuffled rows are kept, and in which encoded ones are that memory does not hold; "
            "default: beside the checkpoints, and a temporary folder, until the run is done."
        ),
    ] = None
    cache: Annotated[
        Literal["auto", "memory", "disk", "none"],
        Meta(
            description="Where encoded rows are kept for later passes: in what --memory leaves, on disk, or auto: in memory, "
            "the rest on disk. The bits are the same."
        ),
    ] = "auto"
    cache_size: Annotated[
        str | None, Meta(description="Bound on encoded rows on disk, e.g. 20GB; default: half of what is free there.")
    ] = None
    keep_cache: Annotated[
        bool, Meta(description="Leave encoded rows in --cache-dir, for later runs of the same data, columns and encoding.")
    ] = False
    memory: Annotated[
        str | None, Meta(description="Bound on the resident memory of all processes, e.g. 4GB; default: half of the machine's.")
    ] = None
    chunk_rows: Annotated[Count | None, Meta(description="Rows mixed together; default: from the memory budget.")] = None

    validation: Annotated[
        Share | str,
        Meta(
            description="Rows held out and scored as they stream by: a share of them, by a stable hash, a condition, e.g. "
            "\"ts >= '2026-01-01'\", a fold, e.g. fold:1/5, or none; auto is 0.05 of several passes, at most about 100,000 "
            "rows, and none of one pass, below 1,000 rows, beside --valid, and where a minimum is asked for (--polish, svrg, "
            "trust-region, draws)."
        ),
    ] = "auto"
    validation_group: Annotated[
        str | None, Meta(description="Column whose values are held out as wholes, e.g. user_id; with a share as --validation.")
    ] = None
    valid: Annotated[str | None, Meta(description="Data set to evaluate after every epoch.")] = None
    valid_filter: Annotated[
        str | None, Meta(description="Rows of --valid to use; --filter is for the rows to learn from, not for these.")
    ] = None
    validate_every: Annotated[Count | None, Meta(description="Also evaluate after about this many rows.")] = None
    patience: Annotated[
        Count | None, Meta(description="Stop after this many evaluations without improvement and keep the best weights.")
    ] = None
    min_improvement: Annotated[float, Meta(ge=0.0, description="Relative improvement that counts, for --patience.")] = 1e-4

    checkpoint: Annotated[str | None, Meta(description="Folder of checkpoints; default: beside the model.")] = None
    checkpoint_every: Annotated[Positive, Meta(description="Seconds between checkpoints.")] = 60.0
    checkpoint_chunks: Annotated[Count | None, Meta(description="Chunks between checkpoints, beside the seconds.")] = None
    checkpoint_keep: Annotated[Count, Meta(description="Checkpoints kept.")] = 2
    resume: Annotated[
        Literal["auto", "never", "always"],
        Meta(description="Go on from a checkpoint: if there is one, never, or refuse to start without."),
    ] = "auto"
    start: Annotated[
        str | None,
        Meta(
            description="Model of an earlier run, trained with --keep-memory, to go on from: its columns, encoding, weights, "
            "settings and what its optimizer remembers."
        ),
    ] = None
    keep_memory: Annotated[
        bool,
        Meta(description="Keep in the model what the optimizer remembers, so that a later run can go on --from it."),
    ] = False
    time_limit: Annotated[Positive | None, Meta(description="Seconds after which to save a checkpoint and exit with 75.")] = (
        None
    )

    strict: Annotated[
        bool,
        Meta(description="Exit non-zero, and save no model, where a run ends no better than the best constant prediction."),
    ] = False

    lanes: Annotated[
        Count | Literal["auto"],
        Meta(description="Streams of chunks that are learned apart and merged; auto is one per 4 GiB of rows, up to 64."),
    ] = "auto"
    combine: Annotated[
        Literal["auto", "average", "sync"],
        Meta(
            description="How lanes become one model: average after every chunk, or sync gradients in every step; auto is sync "
            "for batches of 4096 rows and more."
        ),
    ] = "auto"
    workers: Annotated[
        Count | None, Meta(description="Worker processes on this machine, each with --memory for itself; default: none.")
    ] = None
    scheduler: Annotated[
        str | None, Meta(description="Address of a Dask scheduler whose workers to use, e.g. tcp://10.0.0.1:8786.")
    ] = None
    straggler: Annotated[
        str,
        Meta(
            description="What is done about a lane that is late: again (done twice beyond 3 times the median, or again:TIMES), "
            "wait, or lose its rows: drop:LANES, deadline:SECONDS."
        ),
    ] = "again"
    io_timeout: Annotated[
        float,
        Meta(ge=10.0, description="Seconds of silence after which a storage is given up with an error that names the object."),
    ] = 60.0
    phases: Annotated[
        Names, Meta(description="Phases of your own that a run ends with, each the name of a PhaseKind: package.module:NAME.")
    ] = ()
    threads: Annotated[Count | None, Meta(description="Reading threads; default: the CPU quota.")] = None
    cpu: Annotated[
        Literal["native", "portable"],
        Meta(
            description="Processor to compile for: this one, or x86-64-v2, whose bits are the same on every x86-64 machine, "
            "but slower."
        ),
    ] = "native"
    executor: Annotated[
        Literal["auto", "dask", "threads", "inline"],
        Meta(
            description="Who reads: Dask in this process, plain threads, or the calling thread; auto is Dask to train on more "
            "than 1 GB of files, else threads, which start at once. The bits are the same."
        ),
    ] = "auto"
