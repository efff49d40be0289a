"""What a rehearsal changes in the cells of a notebook, and what it leaves alone."""

import doctest

import pytest

from kaggle_submission.tools import rewrite

UNLEARNING = "def unlearning(net, retain_loader, forget_loader, val_loader):\n    net.train()"
LOOP = "for i in range(512):\n    unlearning(net, retain_loader, forget_loader, val_loader)"
RUN = "unlearning(net, retain, forget, val); torch.save(net.state_dict(), f'/kaggle/tmp/{i}.pth')"


def fitted(*cells, gpu=True):
    return rewrite.fit(list(cells), "/scratch", 4, gpu=gpu)


def test_doctests():
    assert doctest.testmod(rewrite).failed == 0


COUNTS = {
    "plain": ["for i in range(?):\n    unlearning(net, retain, forget, val)"],
    "progress bar": [f"for i in tqdm(range(?), desc='512 runs'):\n    {RUN}"],
    "trange": [f"from tqdm import trange\nfor i in tqdm.trange(?):\n    {RUN}"],
    "from zero": [f"for i in range(0, ?):\n    {RUN}"],
    "from zero by one": [f"for i in range(0, ?, 1):\n    {RUN}"],
    "enumerate": [f"for k, i in enumerate(tqdm(range(?))):\n    {RUN}"],
    "another name of the method": ["def unlearn_it(net):\n    pass", "for i in range(?):\n    unlearn_it(net)"],
    "what it returns": ["for i in range(?):\n    net_ = unlearning(net, r, f, v)\n    torch.save(net_, 'x.pth')"],
    "only saves": ["for i in range(?):\n    scrub(net)\n    torch.save(net.state_dict(), f'{OUT}/{i}.pth')"],
    "helper": [f"def one_run(i):\n    {RUN}", "for i in range(?):\n    one_run(i)"],
    "helper of a helper": [f"def one(i):\n    {RUN}\ndef two(i):\n    one(i)", "[two(i) for i in range(?)]"],
    "name": [f"N_CKPTS: int = ?\nfor i in range(N_CKPTS):\n    {RUN}"],
    "name in another cell": ["n = ?", f"for i in range(n):\n    {RUN}\nprint(f'{{n}} done')"],
    "name set with others": ["BATCH, RUNS = 64, ?", f"for i in range(RUNS):\n    {RUN}"],
    "name set either way": ["RUNS = 2 if DEBUG else ?", f"for i in range(RUNS):\n    {RUN}"],
    "settings class": ["class CFG:\n    width = 512\n    runs = ?", f"for i in range(CFG.runs):\n    {RUN}"],
    "settings dictionary": ["cfg = {'lr': 1, 'runs': ?}", f"for i in range(cfg['runs']):\n    {RUN}"],
    "default": [f"def main(n_models=?):\n    for i in range(n_models):\n        {RUN}\nmain()"],
    "argument": [f"def main(net, n):\n    for i in range(n):\n        {RUN}\nmain(net, ?)"],
    "named argument": [f"def main(n=1):\n    for i in range(n):\n        {RUN}\nmain(n=?)"],
    "range by name": [f"runs = tqdm(range(?))\nfor i in runs:\n    {RUN}\n    runs.set_description('x')"],
    "bar": [f"with tqdm(range(?)) as bar:\n    for i in bar:\n        {RUN}"],
    "while": [f"i = 0\nwhile i < ?:\n    {RUN}\n    i += 1"],
    "break": [f"i = 0\nwhile True:\n    {RUN}\n    i += 1\n    if i == ?: break"],
    "last run": [f"for i in range(?):\n    {RUN}\n    if i + 1 == ?: print('last')"],
    "halves": [f"R = ?\nfor i in range(R // 2):\n    {RUN}\nfor i in range(R // 2, R):\n    {RUN}"],
    "files": ["if len(os.listdir('/tmp')) != ?:\n    raise RuntimeError('Expected exactly 512 checkpoints.')"],
    "files by name": [
        "unlearned_ckpts = os.listdir(OUT)",
        "if len(unlearned_ckpts) != ?: raise RuntimeError(512)",
    ],
    "number of files": ["found = len(list(OUT.glob('*.pth')))\nassert ? == found, found"],
    "names in a zip": ["with ZipFile('submission.zip') as z:\n    assert len(z.namelist()) == ?"],
    "states": [f"states = []\nfor i in range(?):\n    {RUN}\n    states.append(i)\nassert len(states) == ?"],
    "copies": ["for i in range(?):\n    shutil.copy(ready[i], f'/kaggle/tmp/model_{i}.pth')"],
    "expected names": ["names = [f'unlearned_checkpoint_{i}.pth' for i in range(?)]"],
    "pool": [f"def one(i):\n    {RUN}\nwith Pool(2) as pool:\n    list(pool.imap(one, range(?)))"],
    "hours": ["N = ?\nstart = time()", f"for i in range(N):\n    {RUN}\n    left = (time() - start) * N / 3600"],
    "magic": [f"%%time\n!ls\nfor i in range(?):\n    {RUN}"],
}


@pytest.mark.parametrize("kind", COUNTS)
def test_512_is_replaced_where_it_counts_runs(kind):
    before = [cell.replace("?", "512") for cell in COUNTS[kind]]
    result = fitted(*before, LOOP)
    after = [cell.replace("?", "4").replace("/kaggle", "/scratch/kaggle") for cell in COUNTS[kind]]
    assert result.cells[:-1] == after
    assert result.doubts == []
    assert len(result.changes) == sum(cell.count("?") for cell in COUNTS[kind]) + 1


STAYS = {
    "layer": "net.fc = nn.Linear(512, 10)",
    "layer by name": "width = 512\nnet.fc = nn.Linear(width, 10)",
    "layers": "widths = [512, 256, 128]",
    "sequence": "head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.BatchNorm1d(512))",
    "guard of a layer": "assert net.fc.in_features == 512",
    "features by name": "n = net.fc.in_features\nif n != 512:\n    raise ValueError(n)",
    "shape": "if x.shape[1] != 512: raise ValueError",
    "size": "assert features.size(1) == 512",
    "zeros": "means = torch.zeros(10, 512)",
    "batch": "loader = DataLoader(retain, batch_size=512, shuffle=True)",
    "batch by name": "BATCH_SIZE = 512\nloader = DataLoader(retain, BATCH_SIZE)",
    "batch of a settings class": "class CFG:\n    batch = 512\nloader = DataLoader(retain, batch_size=CFG.batch)",
    "seed": "torch.manual_seed(512)",
    "feature names": "columns = [f'feature_{k}' for k in range(512)]",
    "loop over features": "for k in range(512):\n    means[k] = activations[:, k].mean()",
    "loop over features by name": "n = 512\nfor k in range(n):\n    mask[k] = importance[k] > 0",
    "loop in the method": "def unlearning(net, r, f, v):\n    for step in range(512):\n        train_step(net, r)",
    "loop in a helper": (
        "def scrub(net):\n    for k in range(512):\n        unlearn_row(net, k)\n"
        "def unlearning(net, r, f, v):\n    scrub(net)"
    ),
    "resize": "resize = transforms.Resize((512, 512))",
    "text": "print('All 512 runs are done.')",
    "shown": "print(512)",
    "longer": "x = range(5120)",
    "fraction": "lr = 0.512",
    "comment": "x = 1  # range(512)",
    "shell": "%%bash\nfor i in $(seq 512); do echo $i; done",
    "training": "for epoch in range(512):\n    net.train()\n    train(net)",
}


@pytest.mark.parametrize("kind", STAYS)
def test_512_stays_where_it_is_something_else(kind):
    result = fitted(STAYS[kind], LOOP)
    assert result.cells[0] == STAYS[kind]
    assert result.changes == ["cell 2: range(512) -> range(4)"]
    assert result.doubts == (["cell 1 is not plain Python: it runs as it is."] if kind == "shell" else [])


IN_DOUBT = {
    "runs and a layer": f"N = 512\nfor i in range(N):\n    {RUN}\nhead = nn.Linear(N, 10)",
    "by hand": f"for i in range(512 // 2):\n    {RUN}",
    "in steps": f"for i in range(0, 512, 8):\n    {RUN}",
    "counted up": f"n = 512\nn += 1\nfor i in range(n):\n    {RUN}",
    "unknown count": "if count == 512: raise SystemExit",
    "every so often": "if step % 512 == 0: validate()",
    "files of pictures": "assert len(os.listdir('/input/images')) == 512",
}


@pytest.mark.parametrize("kind", IN_DOUBT)
def test_512_stays_when_in_doubt_and_that_is_said(kind):
    result = fitted(IN_DOUBT[kind], LOOP)
    assert result.cells[0].replace("/scratch", "") == IN_DOUBT[kind]
    assert result.changes == ["cell 2: range(512) -> range(4)"]
    assert len(result.doubts) == 1
    assert result.doubts[0].startswith("cell 1: 512 stays in `")


def test_without_a_loop_over_runs_the_doubts_are_said():
    with pytest.raises(ValueError, match=r"No loop over 512 runs was found\. .* cell 1: 512 stays in `for i in "):
        fitted(f"for i in range(512 - 1 + 1):\n    {RUN}")


def test_changes_show_the_code_around():
    result = fitted(f"RUNS: int = 512\nfor i in range(RUNS):\n    {RUN}", "assert len(os.listdir(p)) == 512, 'ä'")
    assert result.changes == [
        "cell 1: RUNS: int = 512 -> RUNS: int = 4",
        "cell 2: len(os.listdir(p)) == 512 -> len(os.listdir(p)) == 4",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("open('/kaggle/input/x/retain.csv')", "open('/scratch/kaggle/input/x/retain.csv')"),
        ("!zip submission.zip /kaggle/tmp/*.pth", "!zip submission.zip /scratch/kaggle/tmp/*.pth"),
        ("os.walk('/kaggle')", "os.walk('/scratch/kaggle')"),
        ("'https://site/kaggle/input'", "'https://site/kaggle/input'"),
        ("'../input/x'", "'/scratch/kaggle/input/x'"),
        ("'/kaggles/x'", "'/kaggles/x'"),
    ],
)
def test_places_of_kaggle_are_replaced(before, after):
    result = fitted(before, LOOP)
    assert result.cells[0] == after
    assert len(result.changes) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("d = 'cuda' if torch.cuda.is_available() else 'cpu'", "d = 'cpu' if True else 'cpu'"),
        ('torch.device("cuda:0")', "torch.device('cpu')"),
        ("if d != 'cuda': raise", "if d != 'cpu': raise"),
        ("!pip list\nx.cuda()", "!pip list\nx.cpu()"),
        ("%%bash\necho 'cuda'", "%%bash\necho 'cuda'"),
        ("if d == 'cpu': raise", "if d == 'no GPU': raise"),
        ("net.cuda()", "net.cpu()"),
        ("torch.cuda.synchronize()", "None"),
    ],
)
def test_a_missing_gpu_is_made_up_for(before, after):
    assert fitted(before, LOOP, gpu=False).cells[0] == after
    assert fitted(before, LOOP).cells[0] == before
