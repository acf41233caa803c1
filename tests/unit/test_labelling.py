from __future__ import annotations

import subprocess
import sys

from danlu.core.progress import Silent
from danlu.labelling import bring_in, summary, write_out
from made_feedback import asked, champion, feedback_of, tell


def test_records_take_over_what_their_requests_say_and_ids_count_once_whoever_wrote_them(tmp_path):
    workspace, model = champion(tmp_path, simple="tfidf-lr")
    (request,) = asked(workspace, model.digest, [("不错的", {"label": "bad"})], arm="challenger", experiment="e1")
    tell(workspace, [feedback_of(request, "user:a", label="good")])
    out = tmp_path / "out.jsonl"
    assert write_out(workspace, "tiny", out, "jsonl").n == 1
    assert (bring_in(workspace, "tiny", out, Silent()).n_known) == 1
    new = tmp_path / "new.csv"
    new.write_text(f"request,label,source_kind,source_id\n{request},good,labeller,ann\n", encoding="utf-8")
    assert bring_in(workspace, "tiny", new, Silent()).n_new == 1
    write_out(workspace, "tiny", out, "jsonl")
    assert '"digest": "' + model.digest in out.read_text(encoding="utf-8")
    found, _ = summary(workspace, "tiny")
    assert (found.n, found.corrected, found.by_arm) == (2, 2, {"challenger": 1})


def test_summing_up_reads_no_model(tmp_path):
    """It counts: what takes ten seconds to import has no part in it."""
    workspace, model = champion(tmp_path, simple="tfidf-lr")
    (request,) = asked(workspace, model.digest, [("a text", {"label": "good", "probability": 0.6})])
    tell(workspace, [feedback_of(request, "user:a", label="bad")])
    for words in ([], [f"export={tmp_path / 'out.csv'}", "format=csv"], [f"import={tmp_path / 'out.csv'}"]):
        code = (
            "import sys\nfrom danlu.cli import main\n"
            f"try:\n    main({['feedback', 'tiny', *words, '--workspace', str(workspace.root), '--json']!r})\n"
            "except SystemExit as done:\n    print(done.code, *[each for each in ('torch', 'sklearn') "
            "if each in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "0", (words, done.stdout, done.stderr)
