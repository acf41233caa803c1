"""The whole cycle on real data: train, serve, watch, hear of it, improve, try, promote, and go back.

    python bench/loop.py [--folder danlu-workspace/loop] [--into docs/loop] [--recipe RECIPE [key=value ...]]

Only the command line (``danlu VERB ...`` as processes) and HTTP are used. A champion is trained on reviews of
hotels; everything about books is left out. It is served, and asked 2,000 texts that it has never seen; then texts about
books come, in traditional characters and with typos. ``danlu monitor`` has to notice. Users correct answers, a
labeller labels what the model doubts, one user lies. ``danlu improve`` makes a new model of what passes the guards,
``danlu promote`` tries it on users, and makes it champion while requests go on: none may fail.

It ends with 1, and says why, as soon as a step does not show what it should. The outcome is written to
``outcome.json``, ``README.md`` and, where Chromium and playwright are installed, pictures of the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danlu.evaluate.intervals import wilson
from loop_checks import content_alarms, expect, failures_alarm, late, of_content, shown
from loop_driver import Answer, Client, Commands, LoopError, Server, Stream, wait_for
from loop_pages import Pages
from loop_told import table, write_outcome
from loop_traffic import LEARNT, LEFT_OUT, SIZES, Sizes, Texts, deal, write_records

NAME = "reviews"
RECIPES = Path(__file__).parent.parent / "recipes"
OVER = ("ensemble=[tfidf-lr,gru]", "evaluate.baselines=[gru]")
"""Over the recipe: with so few texts bert and tfidf-lr alone are not shown to beat anything."""
MARK = "made-by-make-loop"
"""A file that says that a folder is this script's to empty."""
QUOTA = 0.05
LIAR = "mallory"
_ENDS = ("difference", "low", "high")


class Loop:
    """The cycle, a step a method; each fails loudly.

    Args:
        folder: For the workspace and the files of data.
        pages: Takes pictures.
        sizes: How much of everything.
        recipe: The recipe and values over it.
    """

    def __init__(self, folder: Path, pages: Pages, sizes: Sizes, recipe: Sequence[str]) -> None:
        self.folder, self.sizes, self.recipe = folder, sizes, recipe
        self.danlu = Commands(folder / "workspace", Path.cwd())
        self.facts: dict[str, Any] = {"sizes": vars(sizes), "seconds": {}}
        self.pages = pages
        self.texts: Texts
        self.server: Server | None = None
        self.client: Client
        self.champion = self.challenger = ""
        self.truth: dict[str, str] = {}

    def run(self, pool: Path) -> None:
        """All steps.

        Args:
            pool: The folder of a dataset: cleaned, without duplicates.

        Raises:
            LoopError: A step did not show what it should.
        """
        self.texts = deal(pool, self.sizes)
        everything = (self.texts.held_out, self.texts.shifted, self.texts.trial, self.texts.after)
        self.truth = {each.text: each.truth for requests in everything for each in requests}
        try:
            first = (self.train, self.serve, self.quiet, self.shift, self.feedback, self.improve)
            second = (self.trial, self.promote, self.watch_again, self.back_and_forth, self.end)
            for number, step in enumerate((*first, *second), 1):
                print(f"\n{number} {(step.__doc__ or '').splitlines()[0]}", flush=True)
                start = time.monotonic()
                step()
                self.facts["seconds"][step.__name__] = round(time.monotonic() - start, 1)
        finally:
            self.pages.close()
            if self.server is not None:
                self.server.kill()

    def train(self) -> None:
        """A champion that has never read about books."""
        texts = self.texts
        write_records(self.folder / "train.csv", texts.train)
        write_records(self.folder / "gold.csv", texts.gold)
        print(
            f"  {texts.n_pool:,} texts; it learns from those about hotels ({LEARNT}). Left out of training: the\n"
            f"  {texts.n_left_out:,} about books ({LEFT_OUT}),\n"
            "  so that there is something to learn that the champion cannot know"
        )
        words = [
            f"name={NAME}",
            f"data.source={self.folder.resolve() / 'train.csv'}",
            f"data.split.test={self.sizes.test}",
        ]
        ran = self.danlu("run", *self.recipe, *words)
        gate = {key: ran["gate"][key] for key in ("metric", "difference", "low", "high", "p", "baseline")}
        self.facts["train"] = {
            "n_pool": texts.n_pool,
            "n_left_out": texts.n_left_out,
            "left_out": LEFT_OUT,
            "learnt": LEARNT,
            "n": len(texts.train),
            "gate": gate,
        }
        print(
            f"  {len(texts.train):,} texts to train and test on; {gate['metric']} {gate['difference']:+.4f} "
            f"over {gate['baseline']}, p = {gate['p']:.2g}"
        )

    def serve(self) -> None:
        """``danlu serve``, and texts that it has never seen."""
        self.server = Server(self.danlu, NAME, self.folder / "server.txt")
        self.client = Client(self.server.port, NAME)
        self.champion = self.client.ask(f"/v1/models/{NAME}")["digest"]
        self.facts["train"]["digest"] = self.champion
        answers = self.client.replay(self.texts.held_out)
        self.facts["held_out"] = self.accuracy(answers, self.champion)
        n_users = len({each.user for each in self.texts.held_out})
        self.facts["held_out"]["n_users"] = n_users
        print(f"  {len(answers):,} requests of {n_users} users; right {shown(self.facts['held_out'])}")

    def quiet(self) -> None:
        """``danlu monitor``: nothing has changed, and no alarm may come."""
        found = self.danlu("monitor", NAME)
        wrong = content_alarms(found)
        expect(not wrong, f"no alarm before the shift, but: {[each['signal'] for each in wrong]}")
        expect(not failures_alarm(found), "no alarm about failed requests")
        smallest = min((s["p_adjusted"] for s in of_content(found) if s["p_adjusted"] is not None), default=None)
        expect(smallest is not None, "windows were watched")
        n = found["n_requests"] // found["watch"]["window"]
        self.facts["quiet"] = {"n_windows": n, "window": found["watch"]["window"], "smallest_p": smallest}
        self.facts["quiet"]["late"] = late(found)
        print(f"  {n} windows of {found['watch']['window']} requests; smallest p {smallest:.2g}: no alarm")

    def shift(self) -> None:
        """Books, traditional characters, typos: the alarm has to come."""
        before = self.client.n
        self.shifted = self.client.replay(self.texts.shifted)
        expect(self.client.n - before == len(self.texts.shifted), "all were asked")
        found = self.danlu("monitor", NAME)
        alarmed = content_alarms(found)
        expect(bool(alarmed), "an alarm about what is asked")
        window, n_quiet = found["watch"]["window"], len(self.texts.held_out)
        first = min(each["alarm_at"] for each in alarmed)
        n = first * window - n_quiet
        expect(n > 0, f"the alarm comes after the shift, not at window {first}")
        self.facts["shift"] = {
            **self.accuracy(self.shifted, self.champion),
            "windows_to_alarm": first - n_quiet // window,
            "requests_to_alarm": n,
            "signals": [{key: each[key] for key in ("signal", "alarm_at", "excess", "p_adjusted")} for each in alarmed],
            "late": late(found),
        }
        worst = max(alarmed, key=lambda each: -each["alarm_at"])
        print(
            f"  right {shown(self.facts['shift'])}\n  ALARM after {first - n_quiet // window} windows, "
            f"{n} requests of the new kind: {worst['signal']} ({', '.join(each['signal'] for each in alarmed)})"
        )
        self.pages.board(self.server_address, "board-alarm")
        wrong = next((each for each in self.shifted if not each.right and len(each.asked.text) > 20), self.shifted[0])
        self.pages.tried(self.server_address, wrong.asked.text, "try")

    def feedback(self) -> None:
        """What people say: users correct, a labeller is asked, one lies."""
        asked = self.danlu("feedback", NAME, f"ask={self.sizes.labels}", "by=margin")
        n_asked = len(asked["questions"])
        expect(n_asked == self.sizes.labels, f"{self.sizes.labels} questions, not {n_asked}")
        self.pages.label(self.server_address, "label")
        labelled = self.label()
        expect(
            len(labelled) == n_asked, f"{n_asked} questions are answered by the labelling route, not {len(labelled)}"
        )
        honest = [each for place, each in enumerate(self.shifted) if place % 10 < 7]
        unsaid = [each for place, each in enumerate(self.shifted) if place % 10 >= 7 and each.id not in labelled]
        for each in honest:
            said: dict[str, Any] = {"correct": True} if each.right else {"label": each.asked.truth}
            self.said(each, each.asked.user, **said)
        classes = sorted(set(self.truth.values()))
        third = self.sizes.poison // 5
        on_labelled = [each for each in self.shifted if each.id in labelled][:third]
        lies = [*on_labelled, *[each for each in honest if each.id not in labelled][:third]]
        lies += unsaid[: self.sizes.poison - len(lies)]
        for each in lies:
            self.said(each, LIAR, label=next(name for name in classes if name != each.asked.truth))
        again = self.said(lies[0], LIAR, label=next(name for name in classes if name != lies[0].asked.truth))
        expect(again is not None and again["status"] == "known", "the same feedback again counts once")
        counted, n = self.board()["feedback"]["n"], len(labelled) + len(honest) + len(lies)
        expect(counted == n, f"the board counts {n} records of feedback, not {counted}")
        self.facts["feedback"] = {
            "n": n,
            "labelled": len(labelled),
            "users": len({each.asked.user for each in honest}),
            "by_users": len(honest),
            "corrections": sum(not each.right for each in honest),
            "lies": len(lies),
        }
        print(f"  {len(labelled)} labelled, {len(honest)} by honest users, {len(lies)} lies of one user")

    def improve(self) -> None:
        """``danlu improve``: new data, a new model, the gold set."""
        words = (f"gold={self.folder / 'gold.csv'}", f"quota={QUOTA}")
        found = self.danlu("improve", NAME, *words)
        expect(found["passed"], f"the gate lets it pass: {found['gate']}")
        self.challenger = found["models"]["challenger"]["digest"]
        expect(self.challenger != self.champion, "the challenger is another model")
        proposal = json.loads((Path(found["proposal"]) / "proposal.json").read_text(encoding="utf-8"))
        sources = {each["source"]: each for each in proposal["sources"]}
        (liar,) = (each for name, each in sources.items() if name.endswith(LIAR))
        n_used = proposal["feedback"]["n_used"]
        expect(liar["n_used"] <= QUOTA * n_used + 1e-9, f"{LIAR} stays within the quota: {liar}")
        expect(liar["n_used"] <= liar["n"] / 3, f"most lies are stopped: {liar}")
        judged = {}
        for role, compared in proposal["judged"].items():
            (each,) = compared["models"]
            metric = each["metrics"][compared["primary"]]
            judged[role] = {"metric": compared["primary"], "n": each["n"], "p": metric["p_holm"]}
            judged[role] |= {
                key: metric[name]
                for key, name in (
                    ("new", "a"),
                    ("old", "b"),
                    ("difference", "difference"),
                    ("low", "low"),
                    ("high", "high"),
                )
            }
        self.facts["improve"] = {
            "digest": self.challenger,
            "gate": found["gate"],
            "n_used": n_used,
            "dropped": proposal["feedback"]["dropped"],
            "lies": {"n": liar["n"], "n_used": liar["n_used"], "quota": QUOTA},
            "judged": judged,
        }
        gate = found["gate"]
        print(
            f"  learnt from {n_used} of {self.facts['feedback']['n']}; of {liar['n']} lies {liar['n_used']} came "
            f"through\n  gold set: {gate['difference']:+.3f} ({gate['low']:+.3f} to {gate['high']:+.3f}), "
            f"n = {gate['n']}, p = {gate['p']:.2g}"
        )

    def trial(self) -> None:
        """``danlu promote trial=live``: the server holds both, users decide."""
        words = (f"margin={self.sizes.margin}", f"budget={self.sizes.trial}", "why=does it read about books?")
        begun = self.danlu("promote", NAME, "trial=live", *words)
        expect(begun["done"] == "started", f"the trial runs: {begun['reason']}")
        wait_for("the server holds the challenger", lambda: self.client.gauge("danlu_challenger_ready") == 1)
        every = max(20, self.sizes.trial // 24)
        counted: dict[str, list[Answer]] = {self.champion: [], self.challenger: []}
        now: dict[str, Any] = {}
        for start in range(0, self.sizes.trial, every):
            some = self.texts.trial[start : start + every]
            answers = self.client.replay(some)
            for again in self.client.replay(some[:: every // 4]):
                first = next((each for each in answers if each.asked == again.asked), None)
                expect(first is not None and again.digest == first.digest, f"{again.asked.user} keeps an arm")
            for each in answers:
                expect(each.digest in counted, "one of the two answers")
                counted[each.digest].append(each)
                self.said(each, each.asked.user, correct=each.right)
            now = self.board()["experiment"]
            told = f"{now['difference']:+.3f} ({now['low']:+.3f} to {now['high']:+.3f}), {now['decision']}"
            print(f"  {now['n']:5d} users, {now['n_challenger']} of the challenger: {told}", flush=True)
            if start == every:
                self.pages.board(self.server_address, "board-trial")
            if now["decision"] != "continue":
                break
        expect(now["decision"] == "superior", f"the new model is superior, not {now['decision']}")
        expect(all(counted.values()), "both arms answered")
        keys = ("n", "n_challenger", "difference", "low", "high", "decision")
        self.facts["trial"] = {
            **{key: now[key] for key in keys},
            "margin": self.sizes.margin,
            "budget": self.sizes.trial,
            "champion": self.accuracy(counted[self.champion], self.champion),
            "challenger": self.accuracy(counted[self.challenger], self.challenger),
        }

    def promote(self) -> None:
        """``danlu promote``: the gate, and the swap while requests go on."""
        with Stream(self.client, self.texts.after) as stream:
            found = self.danlu("promote", NAME, "by=ann", "why=the trial is decided")
            expect(found["done"] == "promoted", f"it is promoted: {found['reason']}")
            expect(found["champion"] == self.challenger, "the challenger is champion now")
            ended = time.monotonic()
            wait_for("the server answers with the new champion", lambda: stream.answered_by(self.challenger))
            seconds = time.monotonic() - ended
            time.sleep(2)
        expect(not self.client.failed, f"no request failed: {self.client.failed[:3]}")
        self.n_streamed = min(len(stream.answers), len(self.texts.after))
        evidence = found["evidence"]
        self.facts["promote"] = {"seconds": round(seconds, 2), "n_during": len(stream.answers), "evidence": evidence}
        self.facts["promote"]["reason"] = found["reason"]
        print(
            f"  {found['reason']}\n  the server had it {seconds:.1f} s later; {len(stream.answers)} requests meanwhile"
        )

    def watch_again(self) -> None:
        """``danlu monitor`` of the new champion, its record, and the history."""
        answers = self.client.replay(self.texts.after[self.n_streamed :])
        expect({each.digest for each in answers} <= {self.challenger}, "the new champion answers everybody")
        found = self.danlu("monitor", NAME)
        expect(found["digest"] == self.challenger, "the new champion is watched")
        expect(found["n_requests"] >= found["watch"]["window"], "it was watched for a window at least")
        board = self.board()
        expect(board["digest"] == self.challenger, "the board shows the new champion")
        expect(board["experiment"] is None, "no trial runs any more")
        expect(board["history"][0]["digest"] == self.challenger, "the board's history begins with the promotion")
        expect(len(board["alerts"]) > 0, "the board shows the alerts")
        self.pages.board(self.server_address, "board-after")
        verified = self.danlu("verify", f"{NAME}@champion")
        expect(not verified["counts"].get("wrong"), f"nothing of the record is wrong: {verified['counts']}")
        self.facts["again"] = {
            **self.accuracy(answers, self.challenger),
            "n_windows": found["n_requests"] // found["watch"]["window"],
            "estimated": board["estimated_accuracy"],
            "alarms": [each["signal"] for each in content_alarms(found)],
            "verify": verified["counts"],
        }
        alarms = self.facts["again"]["alarms"]
        if alarms:
            print(f"  its traffic has changed since it began to answer: {', '.join(alarms)}")
        print(f"  right {shown(self.facts['again'])}; its record: {verified['counts']}")

    def back_and_forth(self) -> None:
        """``danlu promote back=true``, and forward again."""
        with Stream(self.client, self.texts.after) as stream:
            for words, wanted in (((), self.champion), ((f"to={self.challenger[:12]}",), self.challenger)):
                found = self.danlu("promote", NAME, "back=true", *words, "by=ann", "why=to show that it can be done")
                expect(found["done"] == "rolled back", f"rolled back: {found['reason']}")
                wait_for("the server answers with it", lambda wanted=wanted: stream.answered_by(wanted))
            time.sleep(1)
        log = self.danlu("log")
        was = [entry["digest"] for entry in log["ledger"] if (entry["name"], entry["alias"]) == (NAME, "champion")]
        expect(was == [self.champion, self.challenger] * 2, "the history names every champion in turn")
        self.facts["history"] = [
            {key: entry[key] for key in ("time", "alias", "digest", "by", "reason", "evidence")}
            for entry in log["ledger"]
            if entry["name"] == NAME and entry["alias"] in ("champion", "challenger")
        ]
        for each in self.facts["history"]:
            print(f"  {each['time']}  {each['alias']:10} {each['digest'][:12]}  {each['by']}: {each['reason'][:90]}")

    def end(self) -> None:
        """The server ends; not one request has failed."""
        assert self.server is not None
        expect(self.server.stop() == 0, "the server ends well")
        expect(not self.client.failed, f"no request failed, but {len(self.client.failed)}: {self.client.failed[:3]}")
        self.facts["requests"] = {"n": self.client.n, "failed": len(self.client.failed)}
        self.facts["pictures"] = self.pages.taken
        print(f"  {self.client.n:,} requests, {len(self.client.failed)} failed")

    @property
    def server_address(self) -> str:
        """Where the page is."""
        assert self.server is not None
        return self.server.address

    def accuracy(self, answers: Sequence[Answer], digest: str) -> dict[str, Any]:
        """The share of right answers, and its 95% interval; all have to be of this model."""
        expect({each.digest for each in answers} <= {digest}, "one model answers")
        n, right = len(answers), sum(each.right for each in answers)
        low, high = wilson(right, n, 0.95)
        return {"n": n, "right": right, "accuracy": right / n if n else None, "low": low, "high": high}

    def label(self) -> set[str]:
        """Answer every open question by the labelling route; the requests that they were about."""
        done: set[str] = set()
        while questions := (self.client.ask(f"/label?model={NAME}&n=100") or {"questions": []})["questions"]:
            expect(questions[0]["request"] not in done, "an answered question is not asked again")
            for each in questions:
                body = {"request": each["request"], "index": each["index"], "label": self.truth[each["input"]]}
                body |= {"id": f"label-{each['id']}", "source": {"kind": "labeller", "id": "ann"}}
                expect(self.client.ask("/feedback", body) is not None, "a label is taken in")
                done.add(each["request"])
        return done

    def said(self, answer: Answer, user: str, **said: Any) -> Any:
        """Feedback of a user."""
        body = {"id": f"{user}-{answer.id}"[:100], "request": answer.id, **said}
        return self.client.ask("/feedback", body, user)

    def board(self) -> dict[str, Any]:
        """What the page's board shows."""
        found: dict[str, Any] = self.client.ask(f"/board?model={NAME}") or {}
        expect(bool(found), "there is a board")
        return found


def emptied(folder: Path) -> Path:
    """A folder with nothing in it, that was empty or this script's.

    Raises:
        LoopError: It holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise LoopError(f"{folder} is not empty, and was not made by this script; give another: --folder DIR")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def main() -> int:
    """Run the loop, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("danlu-workspace/loop"))
    parser.add_argument("--into", type=Path)
    parser.add_argument("--samples", type=Path, default=Path("danlu-workspace"), help="the workspace of the sample")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false")
    parser.add_argument("--sizes", choices=sorted(SIZES), default="full")
    parser.add_argument("--recipe", nargs="+", default=[str(RECIPES / "reviews.yaml"), *OVER])
    asked = parser.parse_args()
    into = asked.into or asked.folder / "outcome"
    start = time.monotonic()
    try:
        loop = Loop(emptied(asked.folder), Pages(into, wanted=asked.pictures), SIZES[asked.sizes], asked.recipe)
        pool = Path(Commands(asked.samples, Path.cwd())("data", asked.recipe[0])["dataset"])
        loop.run(pool)
    except LoopError as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    loop.facts["seconds"]["all"] = round(time.monotonic() - start, 1)
    write_outcome(into, loop.facts)
    print(f"\n{table(loop.facts)}\n\nthe outcome is in {into}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
