# Part of scripts/suites/programs: SQLite rewrites a database that lies in a lower layer.
# shellcheck shell=bash disable=SC2154

# plant_database FILE MODE ROWS: a database as another machine may have left it.
plant_database() {
  sqlite3 "$1" >/dev/null <<END
PRAGMA journal_mode=$2;
CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, pad BLOB);
CREATE INDEX words ON t (word);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $3)
  INSERT INTO t SELECT i, 'word ' || (i * 7919 % 1000), randomblob(300) FROM n;
END
}

# The same work on any copy of the database; what it answers depends on the content alone.
sqlite_work() {
  sqlite3 "$1" 2>&1 <<END
.timeout 20000
BEGIN IMMEDIATE;
UPDATE t SET word = 'changed ' || id WHERE id % 3 = 0;
DELETE FROM t WHERE id % 7 = 0;
INSERT INTO t (word, pad) SELECT 'new ' || id, pad FROM t WHERE id % 5 = 0;
COMMIT;
BEGIN;
DELETE FROM t WHERE id % 2 = 0;
ROLLBACK;
VACUUM;
UPDATE t SET pad = substr(pad, 1, 100) WHERE id % 11 = 0;
PRAGMA integrity_check;
SELECT count(*), sum(id), min(word), max(word), sum(length(pad)) FROM t;
END
}

# ask QUESTION: asks the reader that has had the database open all the time.
ask() {
  local answer
  echo "$1" >&"${reader[1]}" || fail "the reader is gone"
  read -r -t 30 -u "${reader[0]}" answer || { fail "the reader has no answer to $1"; answer=none; }
  echo "$answer"
}

# seen_by_reader FLAG: a database like the one a reader from before copy-up has at the end. It is the file the
# writer has changed; but with passthrough, who only reads keeps the lower file (docs/semantics.md).
seen_by_reader() {
  case ,$options, in
    *,data=passthrough,*) [ -z "$1" ] || { echo "$dir/lower/db"; return; } ;;
  esac
  echo "$dir/plain"
}

# sqlite_variant NAME MODE PRAGMAS [FLAG]: a writer beside a reader from before, then many writers.
# With the flag -readonly the reader opens the database in a way that copies nothing up.
sqlite_variant() {
  local rows=20000 expected writer got
  [ "$size" = full ] || rows=3000
  new_stack "sqlite-$1"
  plant_database "$dir/lower/db" "$2" $rows
  cp "$dir/lower/db" "$dir/plain"
  expected=$(sqlite_work "$dir/plain")
  begin
  coproc reader { sqlite3 ${4:+"$4"} "$mnt/db" 2>&1; }
  echo .timeout 20000 >&"${reader[1]}"
  [ -z "$3" ] || ask "$3" >/dev/null
  expect "$1: the reader at first" $rows "$(ask 'SELECT count(*) FROM t;')"
  if [ "$2" = wal ]; then
    # A reader in a transaction keeps its view while a writer commits.
    echo 'BEGIN;' >&"${reader[1]}"
    expect "$1: the reader in a transaction" $rows "$(ask 'SELECT count(*) FROM t;')"
    sqlite3 "$mnt/db" '.timeout 20000' "INSERT INTO t (id, word) VALUES (1000000, 'meanwhile');"
    expect "$1: the reader keeps its view" $rows "$(ask 'SELECT count(*) FROM t;')"
    echo 'COMMIT;' >&"${reader[1]}"
    expect "$1: the reader sees the commit" $((rows + 1)) "$(ask 'SELECT count(*) FROM t;')"
    sqlite3 "$mnt/db" '.timeout 20000' 'DELETE FROM t WHERE id = 1000000;'
  fi
  got=$(sqlite_work "$mnt/db") || true
  expect "$1: the writer" "$expected" "$got"
  expect "$1: the reader at the end" "$(sqlite3 "$(seen_by_reader "${4:-}")" 'SELECT count(*), sum(id) FROM t;')" \
    "$(ask 'SELECT count(*), sum(id) FROM t;')"
  expect "$1: the reader finds it whole" ok "$(ask 'PRAGMA integrity_check;')"
  [ -n "${4:-}" ] || expect "$1: the reader writes" 1 \
    "$(ask 'UPDATE t SET word = 1 WHERE id = 1; SELECT changes();')"
  sqlite_crowd "$1"
  echo .quit >&"${reader[1]}"
  # shellcheck disable=SC2154 # set by coproc
  wait "$reader_PID" || fail "$1: the reader ended with an error"
  expect "$1: in the end" ok "$(sqlite3 "$mnt/db" 'PRAGMA integrity_check;' || true)"
  end
}

# Four writers at once, each transaction on its own connection.
sqlite_crowd() {
  local writer count=25 crowd=()
  [ "$size" = full ] || count=5
  sqlite3 "$mnt/db" '.timeout 60000' 'CREATE TABLE crowd (writer, n);'
  for writer in 1 2 3 4; do
    for n in $(seq $count); do
      sqlite3 "$mnt/db" '.timeout 60000' "INSERT INTO crowd VALUES ($writer, $n);" || echo "$writer lost $n"
    done >>"$dir/crowd.log" 2>&1 &
    crowd+=($!)
  done
  wait "${crowd[@]}"
  [ ! -s "$dir/crowd.log" ] || fail "$1: writers at once: $(head -n 3 "$dir/crowd.log")"
  expect "$1: every transaction is there" "$((4 * count))|4" \
    "$(sqlite3 "$mnt/db" 'SELECT count(*), count(DISTINCT writer) FROM crowd;')"
}

# A database in a lower whose last transactions are still in its write-ahead log.
sqlite_left_open() {
  new_stack sqlite-left-open
  plant_database "$dir/lower/db" wal 1000
  sqlite3 "$dir/lower/db" '.dbconfig no_ckpt_on_close on' "INSERT INTO t (word) VALUES ('logged');" >/dev/null
  [ -s "$dir/lower/db-wal" ] || fail "the log was not left"
  begin
  expect "what is in the log" 1001 "$(sqlite3 "$mnt/db" 'SELECT count(*) FROM t;')"
  sqlite3 "$mnt/db" "DELETE FROM t WHERE word = 'logged';" 'PRAGMA journal_mode=delete;' >/dev/null
  expect "after the log" 1000 "$(sqlite3 "$mnt/db" 'SELECT count(*) FROM t;')"
  [ ! -e "$mnt/db-wal" ] || fail "the log is still there"
  end
}

part_sqlite() {
  need_programs sqlite3:sqlite3
  sqlite_variant rollback delete ''
  sqlite_variant read-only delete '' -readonly
  sqlite_variant wal wal ''
  if [ "$size" = full ]; then
    sqlite_variant truncate truncate ''
    sqlite_variant persist persist ''
    sqlite_variant mapped delete 'PRAGMA mmap_size=268435456;'
    sqlite_variant mapped-wal wal 'PRAGMA mmap_size=268435456;'
  fi
  sqlite_left_open
}
