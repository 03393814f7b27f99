"""The catalogue of reference images is that of the paper's job, and every file of it is pinned."""

from __future__ import annotations

import re
from pathlib import Path

from raymap.personalize.references.catalogue import read_catalogue
from raymap.study.file import load_study

JOB = Path(__file__).parents[2] / "jobs" / "paper.yaml"
HOST = "https://raw.githubusercontent.com"
FACES = [f"face-{k}" for k in range(1, 6)]


def test_the_catalogue_has_the_subjects_and_files_of_the_papers_job() -> None:
    study = load_study(JOB)
    entries = read_catalogue().subjects
    assert [(s.name, s.category, s.class_word) for s in study.subjects] == [
        (e.name, e.category, e.class_word) for e in entries
    ]
    for subject, entry in zip(study.subjects, entries, strict=True):
        count = len(entry.files) or 3
        assert 3 <= count <= 6
        assert [path.relative_to(JOB.parent).as_posix() for path in subject.references] == [
            f"references/{entry.name}/{k}.jpg" for k in range(1, count + 1)
        ]


def test_every_file_of_the_catalogue_is_pinned_by_commit_and_digest() -> None:
    catalogue = read_catalogue()
    files = [file for entry in catalogue.subjects for file in entry.files]
    assert len(files) == 65
    assert len({file.sha256 for file in files}) == 65
    for file in files:
        assert file.sha256
        url = catalogue.sources[file.source].at(file.path)
        assert re.fullmatch(rf"{HOST}/[^/]+/[^/]+/[0-9a-f]{{40}}/[^?#]+\.jpg", url), url


def test_only_faces_are_of_people_who_were_not_asked_and_only_pop_art_has_no_source() -> None:
    catalogue = read_catalogue()
    assert [entry.name for entry in catalogue.subjects if catalogue.doubts(entry)] == FACES
    assert [entry.name for entry in catalogue.subjects if entry.own] == ["pop-art"]
