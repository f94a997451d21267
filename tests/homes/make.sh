#!/usr/bin/env bash
# Makes tests/homes/<version>.tar.gz: a small project and its home as a past version of the program left them, which
# `llmops upgrade` has to bring to the present one. Run in an environment of that version: make.sh CHECKOUT VERSION MODELS
set -euo pipefail
checkout=$(realpath "$1") version=$2 models=$(realpath "$3") here=$(realpath "$(dirname "$0")")
# Iceberg's metadata holds absolute paths: the test puts the home back under this name.
base=/tmp/llmops-home-$version
mkdir "$base"
trap 'rm -rf "$base"' EXIT
mkdir -p "$base/home" "$base/project/assistants/notes/docs"
ln -s "$models" "$base/home/models"
export LLMOPS_HOME=$base/home DAGSTER_HOME=$base/home/dagster PYTHONPATH=$checkout
llmops() { python -m llmops_cli.main "$@"; }

cd "$base/project/assistants/notes"
cp -r "$checkout"/llmops_cli/new_assistant/{definitions.py,prompts} .
echo '# Tea
Green tea is brewed at eighty degrees for two minutes.' >docs/tea.md
echo '# Bread
Bread dough rests for one hour before it is baked.' >docs/bread.md
echo '{"case_id": "tea", "question": "How hot is the water for green tea?", "gold_document_ids": ["docs/tea.md"], "answers": ["eighty degrees"]}' >cases.jsonl
echo 'name: notes
sources: [{type: folder, path: docs}]
generator: {max_tokens: 4}
evaluation: {cases: cases.jsonl}' >assistant.yaml
cd "$base/project"
echo 'load_from: [{python_file: {relative_path: assistants/notes/definitions.py, location_name: notes}}]' >workspace.yaml
llmops build
llmops ask "How hot is the water for green tea?"
llmops ingest
llmops evaluate
llmops maintain
rm "$base/home/models"
tar -C "$base" -czf "$here/$version.tar.gz" home project
