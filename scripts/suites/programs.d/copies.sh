# Part of scripts/suites/programs: copies with every attribute come back equal.
# shellcheck shell=bash disable=SC2154

# One of everything that has attributes.
plant_everything() {
  mkdir -p "$1"/{plain,deep/er/est,acl,setgid,empty}
  cp -r "$top/crates" "$1/plain"
  head -c 300000 /dev/urandom >"$1/deep/random"
  truncate -s 5M "$1/deep/sparse"
  printf data | dd of="$1/deep/sparse" bs=1 seek=2000000 conv=notrunc status=none
  ln "$1/deep/random" "$1/deep/er/second-name"
  ln -s ../deep/random "$1/plain/link"
  ln -s /nowhere/at/all "$1/plain/dangling"
  ln "$1/plain/dangling" "$1/plain/dangling-too" 2>/dev/null || true
  mkfifo "$1/deep/fifo"
  mknod "$1/deep/null" c 1 3
  mknod "$1/deep/block" b 7 77
  touch "$1/deep/er/$(printf 'new\nline \377 "quoted"')"
  echo owned >"$1/deep/owned"
  chown 1234:4321 "$1/deep/owned"
  chmod 6751 "$1/deep/owned"
  chmod 1777 "$1/empty"
  chgrp 50 "$1/setgid"
  chmod 2770 "$1/setgid"
  setfattr -n user.note -v 'a value' "$1/deep/random"
  setfattr -n user.binary -v 0x0001ff "$1/acl"
  setfattr -n trusted.mark -v t "$1/deep/owned"
  setfacl -m u:77:rw,g:88:r "$1/deep/random"
  setfacl -d -m u:77:rwx "$1/acl"
  cp /bin/true "$1/plain/capable"
  setcap cap_net_raw+ep "$1/plain/capable"
  # rsync leaves times alone that differ by parts of a second: none may be the one of right now.
  find "$1" -exec touch -h -d '2011-11-11 11:11:11.5' {} +
  touch -h -d '1975-05-05 05:05:05.123456789' "$1/plain/link" "$1/deep/owned"
}

# same WHAT A B [RULE…]
same() {
  local what=$1 a=$2 b=$3 out
  shift 3
  out=$("$treecmp" compare "$@" "$a" "$b") || fail "$what: $out"
}

part_copies() {
  need_programs rsync:rsync tar:tar setfattr:attr setfacl:acl setcap:libcap2-bin
  new_stack copies
  plant_everything "$dir/lower/from"
  "$treecmp" save "$dir/lower/from" "$dir/from"
  begin
  cd "$mnt" || return
  cp -a from by-cp || fail "cp -a"
  # No program makes holes where zeros were written, so what is there twice was told as a hole.
  [ "$(du -k by-cp/deep/sparse | cut -f1)" -lt 1000 ] || fail "cp -a has filled the holes"
  rsync -aHAXS from/ by-rsync/ || fail "rsync -aHAXS"
  tar --create --xattrs --xattrs-include='*' --acls --sparse --file all.tar from || fail "tar"
  mkdir by-tar
  tar --extract --xattrs --xattrs-include='*' --acls --same-owner --file all.tar --directory by-tar ||
    fail "tar --extract"
  for copy in by-cp by-rsync by-tar/from; do same "$copy" "$dir/from" "$copy"; done
  # Out of the mount, and from there over what is there.
  rsync -aHAXS by-rsync/ "$dir/outside/" || fail "rsync out of the mount"
  same "rsync out of the mount" "$dir/from" "$dir/outside"
  echo more >>"$dir/outside/deep/owned"
  rm "$dir/outside/plain/link"
  touch -d '2012-12-12 12:12:12' "$dir/outside/plain"
  rsync -aHAXS --delete "$dir/outside/" from/ || fail "rsync over a lower tree"
  same "rsync over a lower tree" "$dir/outside" from
  rsync -aHAXS --delete --inplace "$dir/lower/from/" from/ || fail "rsync --inplace over an upper tree"
  same "rsync back again" "$dir/from" from
  tar --extract --overwrite --xattrs --acls --file all.tar || fail "tar --extract over a tree"
  cp -a --remove-destination from/. by-cp || fail "cp -a over a tree"
  same "cp -a over a tree" from by-cp
  mv by-tar/from moved
  same "mv of a tree" "$dir/from" moved
  rm -rf by-rsync moved from/plain
  expect "rm -rf" $'all.tar\nby-cp\nby-tar\nfrom' "$(ls)"
  rm all.tar
  end
}
