"""Notebooks for rehearsals: one in the style of the competition's starter, and one that hands in ready files."""

STARTER = [
    """\
import os
import subprocess

import pandas as pd
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
if DEVICE != 'cuda':
    raise RuntimeError('No accelerator is attached to this notebook.')
""",
    """\
def load_example(row):
    image = torchvision.io.read_image(row['path'])
    return {key: row[key] for key in ('image_id', 'age_group', 'age', 'person_id')} | {'image': image}


class HiddenDataset(Dataset):
    def __init__(self, split='train'):
        super().__init__()
        table = pd.read_csv(f'/kaggle/input/neurips-2023-machine-unlearning/{split}.csv')
        folder = '/kaggle/input/neurips-2023-machine-unlearning/images'
        table['path'] = [os.path.join(folder, *name.split('-')) + '.png' for name in table['image_id']]
        table = table.sort_values(by='path')
        self.examples = [load_example(row) for _, row in table.iterrows()]
        if not self.examples:
            raise ValueError('no examples')

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        example = self.examples[index]
        example['image'] = example['image'].to(torch.float32)
        return example


def get_dataset(batch_size):
    splits = [HiddenDataset(split=split) for split in ('retain', 'forget', 'validation')]
    return [DataLoader(split, batch_size=batch_size, shuffle=True) for split in splits]
""",
    """\
def unlearning(net, retain_loader, forget_loader, val_loader):
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1)
    net.train()
    for sample in retain_loader:
        inputs, targets = sample['image'].to(DEVICE), sample['age_group'].to(DEVICE)
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    scheduler.step()
    net.eval()
""",
    """\
if os.path.exists('/kaggle/input/neurips-2023-machine-unlearning/empty.txt'):
    # only the copy of the data that everybody sees has this file
    subprocess.run('touch submission.zip', shell=True)
else:
    os.makedirs('/kaggle/tmp', exist_ok=True)
    retain_loader, forget_loader, val_loader = get_dataset(64)
    net = resnet18(weights=None, num_classes=10)
    net.to(DEVICE)
    for i in range(512):
        net.load_state_dict(torch.load('/kaggle/input/neurips-2023-machine-unlearning/original_model.pth'))
        unlearning(net, retain_loader, forget_loader, val_loader)
        torch.save(net.state_dict(), f'/kaggle/tmp/unlearned_checkpoint_{i}.pth')
    found = len(os.listdir('/kaggle/tmp'))
    if found != 512:
        raise RuntimeError(f'Expected exactly 512 checkpoints, found {found}.')
    subprocess.run('zip submission.zip /kaggle/tmp/*.pth', shell=True)
""",
]

COPYING = [
    "import os, shutil, signal, time, zipfile",
    """\
for i in range(512):
    path = f'/kaggle/tmp/unlearned_checkpoint_{i}.pth'
    shutil.copy(f'READY_{i}.pth', path)
""",
    """\
with zipfile.ZipFile('submission.zip', 'w') as archive:
    for name in os.listdir('/kaggle/tmp'):
        archive.write('/kaggle/tmp/' + name, name)
""",
]


def notebook(cells):
    """Return a notebook of these code cells, as Kaggle gives it: without ids, and with one cell of text."""
    text = {"cell_type": "markdown", "metadata": {}, "source": ["# Submission"]}
    code = [
        {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {"trusted": True},
            "outputs": [],
            "source": cell.splitlines(keepends=True),
        }
        for cell in cells
    ]
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": [text, *code], "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def changed(cells, *replacements):
    """Return the cells with each (old, new) text replaced; every old one must occur exactly once."""
    text = "\0".join(cells)
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.split("\0")
