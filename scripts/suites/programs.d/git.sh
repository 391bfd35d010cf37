# Part of scripts/suites/programs: git clones, changes, repacks and checks.
# shellcheck shell=bash disable=SC2154

git_here() { git -c core.fsync=none -c gc.auto=0 -c advice.detachedHead=false "$@"; }

# A repository with some history, out of the sources of this workspace.
plant_repository() {
  local round rounds=30
  [ "$size" = full ] || rounds=8
  mkdir "$1"
  cp -r "$top/crates" "$top/docs" "$1"
  find "$1" -type d -empty -delete
  (
    cd "$1" || exit 1
    git_here init -q -b main .
    git_here add -A
    git_here commit -q -m 'begin'
    for round in $(seq $rounds); do
      find . -name '*.rs' -not -path './.git/*' | LC_ALL=C sort | awk "NR % $rounds == $round - 1" |
        while read -r file; do echo "// $round" >>"$file"; done
      mkdir "more-$round"
      head -c 20000 /dev/urandom >"more-$round/blob"
      git_here add -A
      git_here commit -q -m "round $round"
      [ $((round % 4)) != 0 ] || git_here tag "round-$round"
    done
    git_here branch old HEAD~5
  )
}

part_git() {
  need_programs git:git
  export GIT_AUTHOR_NAME=suite GIT_AUTHOR_EMAIL=s@example.org GIT_COMMITTER_NAME=suite
  export GIT_COMMITTER_EMAIL=s@example.org GIT_CONFIG_GLOBAL=/dev/null
  new_stack git
  plant_repository "$dir/lower/repository"
  local head tree
  head=$(git -C "$dir/lower/repository" rev-parse HEAD)
  tree=$(git -C "$dir/lower/repository" rev-parse 'HEAD^{tree}')
  begin
  cd "$mnt/repository" || return
  expect "git: nothing to commit at first" '' "$(git_here status --porcelain)"
  git_here fsck --strict --no-progress || fail "git fsck of the lower repository"
  # By a clone over the protocol, and by one that links the objects.
  git_here clone -q "file://$mnt/repository" "$mnt/clone" || fail "git clone"
  git_here clone -q --local "$mnt/repository" "$mnt/linked" || fail "git clone --local"
  expect "git: the clone" "$head" "$(git -C "$mnt/clone" rev-parse HEAD)"
  expect "git: the checkout of the clone" '' "$(diff -r --exclude=.git . "$mnt/clone")"

  git_here checkout -q old
  git_here checkout -q -b work
  git mv docs/semantics.md moved.md
  echo changed >>moved.md
  git_here commit -q -a -m 'move a file'
  git_here checkout -q main
  git_here merge -q -m merged work || fail "git merge"
  git_here worktree add -q "$mnt/worktree" old || fail "git worktree"
  git_here stash list
  git_here gc --quiet --aggressive --prune=now || fail "git gc"
  git_here fsck --strict --no-progress --full || fail "git fsck after gc"
  expect "git: what main was" "$tree" "$(git rev-parse 'HEAD^1^{tree}')"
  git_here rm -rq crates/plyfs-sys
  git_here reset -q --hard HEAD
  git_here clean -qfdx
  expect "git: nothing to commit at last" '' "$(git_here status --porcelain)"
  git -C "$mnt/clone" pull -q --no-rebase origin main || fail "git pull"
  git -C "$mnt/clone" fsck --no-progress || fail "git fsck of the clone"
  git -C "$mnt/linked" fsck --no-progress || fail "git fsck of the linked clone"
  git -C "$mnt/worktree" status -s >/dev/null || fail "git status of the worktree"
  end
}
