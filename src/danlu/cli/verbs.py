"""The verbs: ``danlu VERB TARGET key=value ...``. Each imports what it needs when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from danlu.cli.crew import in_crew
from danlu.cli.verb import Answer, Call, app, verb
from danlu.core.errors import UsageError

__all__ = ["app"]

RecipePath = Annotated[Path, typer.Argument(help="A recipe (YAML).", metavar="RECIPE")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Values over the recipe's.", metavar="[key=value ...]")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write the curves of training for TensorBoard, too.")]
Model = Annotated[str, typer.Argument(help="A model: its folder, name@alias, or a name alone.", metavar="MODEL")]

_PROFILE = "train.profile_steps=8"
_TENSORBOARD = "train.tensorboard=true"


@verb
def run(call: Call, recipe: RecipePath, overrides: Overrides = None, tensorboard: TensorBoard = False) -> Answer:
    """Do everything: data, training, baselines, evaluation, comparison, report."""
    from danlu.cli import answers
    from danlu.pipeline import Job

    words = [*(overrides or []), *([_TENSORBOARD] if tensorboard else [])]
    job = Job.load(recipe, words, call.workspace, call.progress)
    return in_crew(job, lambda job: answers.ran(job.run()))


@verb
def data(
    call: Call,
    recipe: RecipePath,
    overrides: Overrides = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Where: in this process, or under Ray (RAY_ADDRESS or this machine). The result is the same."
        ),
    ] = "local",
) -> Answer:
    """Read, clean, deduplicate and split the records; every dropped one keeps its reason."""
    from danlu.cli import answers
    from danlu.pipeline import Job

    job = Job.load(recipe, overrides, call.workspace, call.progress, engine)
    return answers.prepared(job.dataset, job.data_card())


@verb
def train(
    call: Call,
    recipe: RecipePath,
    overrides: Overrides = None,
    tensorboard: TensorBoard = False,
    profile: Annotated[bool, typer.Option("--profile", help="Record where the time of some steps goes.")] = False,
) -> Answer:
    """Train the recipe's model, from its last checkpoint if it was interrupted."""
    from danlu.cli import answers
    from danlu.pipeline import Job

    watched = {_TENSORBOARD: tensorboard, _PROFILE: profile}
    words = [*(overrides or []), *(word for word, asked in watched.items() if asked)]
    job = Job.load(recipe, words, call.workspace, call.progress)
    return in_crew(job, lambda job: answers.trained(next(iter(job.models().values()))))


@verb
def plan(call: Call, recipe: RecipePath, overrides: Overrides = None) -> Answer:
    """Say what training will cost on this machine: parameters, memory, operations, time."""
    from danlu.cli import answers
    from danlu.pipeline import Job

    return answers.planned(Job.load(recipe, overrides, call.workspace, call.progress).plan())


@verb
def tune(call: Call, recipe: RecipePath, overrides: Overrides = None) -> Answer:
    """Search for values of the recipe with which its model does better on the validation split."""
    from danlu.cli import answers
    from danlu.pipeline import Job
    from danlu.tuning import tune as search

    found = search(Job.load(recipe, overrides, call.workspace, call.progress))
    return answers.tuned(found, recipe, overrides or [])


@verb
def eval_(call: Call, model: Model, overrides: Overrides = None) -> Answer:
    """Judge a model on the test split that it was never trained on."""
    from danlu.cli import answers
    from danlu.pipeline import evaluate_target

    return answers.evaluated(evaluate_target(call.workspace, model, overrides or [], call.progress))


@verb
def compare(
    call: Call,
    models: Annotated[list[str], typer.Argument(help="Two or more models; the first is the baseline.")],
) -> Answer:
    """Test whether models differ, on the same test split, pair by pair."""
    from danlu.cli import answers
    from danlu.pipeline import compare_targets

    return answers.compared(compare_targets(call.workspace, models, call.progress))


@verb
def predict(
    call: Call,
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or files of pictures; none reads them from stdin, one a line.")
    ] = None,
    decode: Annotated[
        list[str] | None, typer.Option(help="How text is written, e.g. temperature=0.7; may come again.", metavar="K=V")
    ] = None,
) -> Answer:
    """Answer texts or pictures; continue them, or translate them."""
    from danlu.cli import answers
    from danlu.model.predictor import load_predictor

    predictor = load_predictor(call.workspace.target(model, "model"))
    try:
        asked = texts or [line.decode().rstrip("\r\n") for line in sys.stdin.buffer]
        "".join(asked).encode()  # what was no UTF-8 on the command line cannot be encoded again
    except UnicodeError as error:
        raise UsageError(
            "the text is not UTF-8",
            where="stdin" if not texts else "command line",
            advice="convert it first: iconv -f GB18030 -t UTF-8",
        ) from error
    return answers.predicted(asked, predictor, decode or [])


@verb
def serve(
    call: Call,
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models, then values of the server, e.g. port=8100.", metavar="MODEL ... [key=value ...]"),
    ] = None,
    new_key: Annotated[
        str | None,
        typer.Option(
            "--new-key",
            help="Make an API key for whom it names, show it once, and end. It may ask the models; for the board and "
            "labelling, too: scopes=[ask,metrics,label].",
            metavar="NAME",
        ),
    ] = None,
) -> Answer:
    """Answer requests over HTTP: classes, translations, and the routes of OpenAI's clients."""
    from danlu.cli import serving

    words = models or []
    targets = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    return serving.key_made(call, new_key, overrides) if new_key else serving.served(call, targets, overrides)


@verb
def monitor(
    call: Call,
    model: Model,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="[window=N] [level=P] [minimum.SIGNAL=X] [after=TIME] [webhook=URL] [follow=true] "
            "[reset=true why=TEXT]",
            metavar="[key=value ...]",
        ),
    ] = None,
) -> Answer:
    """Compare what is asked with the test split; alarms at a stated rate. An alarm is a finding: it exits with 0."""
    from danlu.cli import monitoring

    return monitoring.monitored(call, model, overrides or [])


@verb
def export(
    call: Call,
    model: Model,
    folder: Annotated[Path, typer.Argument(help="Where to; it must not be there yet.", metavar="FOLDER")],
) -> Answer:
    """Write a model as a folder in Hugging Face layout, which transformers loads."""
    from danlu.cli import answers
    from danlu.model.predictor import load_predictor

    found = call.workspace.target(model, "model")
    load_predictor(found).export(folder)
    return answers.exported(found, folder)


@verb
def audit(
    call: Call,
    suspect: Annotated[
        str, typer.Argument(help="The model in question: a folder, name@alias, or an endpoint.", metavar="SUSPECT")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="against=REFERENCE [controls=DIR] [siblings=DIR] [prompts=FILE] [model=NAME] [alpha=P]",
            metavar="key=value ...",
        ),
    ] = None,
) -> Answer:
    """Test whether a model is derived from another one, with p-values that hold."""
    from danlu.auditing import audit as run
    from danlu.cli import answers
    from danlu.recording import record

    found = run(call.workspace, suspect, overrides or [], call.progress)
    return answers.audited(record(call.workspace, found, call.progress))


@verb
def verify(
    call: Call,
    model: Annotated[
        str, typer.Argument(help="A model, an evaluation or an audit: its folder, or name@alias.", metavar="MODEL")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="[replay=N] [key=PUBLIC.pem] [seeds=FILE]", metavar="[key=value ...]"),
    ] = None,
) -> Answer:
    """Check the record that a model carries: what is verified, claimed, missing or wrong."""
    from danlu.cli import records
    from danlu.verifying import verify as check

    return records.verified(check(call.workspace, model, overrides or [], call.progress))


@verb
def feedback(
    call: Call,
    name: Annotated[str, typer.Argument(help="A model's name, without an alias.", metavar="NAME")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="[import=FILE | export=FILE format=jsonl|csv|label-studio | ask=N by=margin|entropy|core-set|random]; "
            "random draws evenly, the same for the same seed=, as a measure for the others.",
            metavar="[key=value ...]",
        ),
    ] = None,
) -> Answer:
    """Sum up what people said of a model's answers; take it in, write it out, or choose what is worth a label."""
    from danlu.cli import improving

    return improving.fed_back(call, name, overrides or [])


@verb
def improve(
    call: Call,
    name: Annotated[str, typer.Argument(help="A model's name, without an alias.", metavar="NAME")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="[gold=FILE] [quota=0.2] [min=20] [margin=0.05] [recipe=FILE], and values over the recipe's.",
            metavar="[key=value ...]",
        ),
    ] = None,
) -> Answer:
    """Train the champion anew with the feedback that passes the guards, and propose it if it has not become worse."""
    from danlu.cli.improving import improved
    from danlu.improving import improve as run

    return improved(run(call.workspace, name, overrides or [], call.progress))


@verb
def promote(
    call: Call,
    name: Annotated[str, typer.Argument(help="A model's name, without an alias.", metavar="NAME")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="[allow=equivalent] [to=DIGEST] | trial=live|shadow margin=D budget=N [share=Q] [level=P] | "
            "stop=true | back=true [to=DIGEST]; each [by=WHO] [why=TEXT]",
            metavar="[key=value ...]",
        ),
    ] = None,
) -> Answer:
    """Make the challenger champion if the gate passes; try it on traffic first; or go back."""
    from danlu.cli import promoting

    return promoting.promoted(call, name, overrides or [])


@verb
def log(
    call: Call,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Models, or runs by the beginning of their folder's name.", metavar="[NAME ...]"),
    ] = None,
) -> Answer:
    """List models and runs, and what was decided about them; or compare the training curves of those named."""
    from danlu.cli import answers, curves

    return curves.overlaid(call.workspace, names) if names else answers.logged(call.workspace)


@verb
def config(
    call: Call,
    what: Annotated[Literal["show", "schema"], typer.Argument(help="show a recipe's values, or the JSON schema.")],
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML).", metavar="[RECIPE]")] = None,
    overrides: Overrides = None,
) -> Answer:
    """Show every value of a recipe and where it came from, or the JSON schema for editors."""
    from danlu import recipe as recipes
    from danlu.cli import answers

    if what == "schema":
        return answers.schema(recipes.json_schema())
    if recipe is None:
        raise UsageError("which recipe?", advice="danlu config show RECIPE [key=value ...]")
    return answers.configured(recipes.load(recipe, overrides or [], call.workspace))


@verb
def doctor(call: Call) -> Answer:
    """Check the installation with a ten-second training on made-up data."""
    from danlu.cli import answers
    from danlu.doctor import examine

    return answers.examined(examine(call.workspace, call.progress))


@verb
def fetch(
    call: Call,
    name: Annotated[str, typer.Argument(help="A sample, e.g. zh-reviews.", metavar="SAMPLE")],
    mirror: Annotated[
        Path | None, typer.Option(envvar="DANLU_MIRROR", help="A folder that holds the archives.", metavar="DIR")
    ] = None,
) -> Answer:
    """Bring a named sample to this machine: the only verb that opens a connection."""
    from danlu.cli import answers
    from danlu.data import fetch as fetching

    call.progress.stage(f"fetch {name}")
    folder = fetching.fetch(
        name,
        call.workspace.samples,
        mirror=mirror,
        progress=lambda file, done, total: call.progress.update(done, total or None, file),
    )
    return answers.fetched(name, folder)
