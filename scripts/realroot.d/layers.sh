# Part of scripts/realroot: splits the root file system over three layers so that layering matters.
# shellcheck shell=bash disable=SC2154

# move FROM TO: moves the paths on standard input (NUL after each) between layers, with the
# attributes of their parents.
move() {
  local list=$work/move.list
  cat >"$list"
  (cd "$1" && xargs -0 -r -a "$list" cp -a --parents -t "$2" && xargs -0 -r -a "$list" rm -rf)
  rm "$list"
}

# every N DIR…: every N-th file below DIR, so that directories are merged from several layers.
every() {
  local n=$1
  shift
  find "$@" -type f -links 1 -print0 | sort -z | awk -v RS='\0' -v ORS='\0' -v n="$n" 'NR % n == 0'
}

# The layers, topmost first. The top has whiteouts and opaque directories over the others, files
# over directories and directories over files; the middle hides parts of the bottom.
split_layers() {
  local top=$work/l0 middle=$work/l1 bottom=$work/l2
  layers=("$top" "$middle" "$bottom")
  mkdir "${layers[@]}"
  chmod 755 "${layers[@]}"
  tar -C "$bottom" -xpf "$root_tar" --numeric-owner --xattrs --xattrs-include='*' --acls

  (cd "$bottom" && every 2 usr/share usr/lib/x86_64-linux-gnu) | move "$bottom" "$middle"
  (cd "$bottom" && every 3 etc usr/bin usr/sbin var/lib/dpkg/info) | move "$bottom" "$top"
  printf 'usr/include\0' | move "$bottom" "$middle"
  seed_bottom "$bottom"
  seed_middle "$middle"
  seed_top "$top"
}

seed_bottom() {
  local l=$1
  mkdir -p "$l"/opt/{app/old,tree/a/b/c,gone/deep,swap,links,perm,acl,big} "$l/usr/share/obsolete/x"
  echo bottom >"$l/etc/motd"
  echo lower content >"$l/etc/services.lower"
  mkdir -p "$l/opt/lowerdir"
  echo x >"$l/opt/lowerdir/x"
  echo old >"$l/opt/app/old/config"
  echo old >"$l/opt/app/start"
  for i in 1 2 3 4 5; do echo "$i" >"$l/opt/tree/a/b/c/file$i"; done
  echo hidden >"$l/opt/gone/deep/file"
  echo hidden >"$l/opt/swap/inside"
  echo hidden >"$l/usr/share/obsolete/x/y"
  echo linked >"$l/opt/links/one"
  ln "$l/opt/links/one" "$l/opt/links/two"
  ln "$l/opt/links/one" "$l/opt/links/three"
  ln -s one "$l/opt/links/soft"
  mkfifo "$l/opt/perm/fifo"
  mknod "$l/opt/perm/null" c 1 3
  cp -a /bin/true "$l/opt/perm/suid"
  chmod 4755 "$l/opt/perm/suid"
  cp -a /bin/true "$l/opt/perm/capable"
  setcap cap_net_bind_service+ep "$l/opt/perm/capable"
  setfattr -n user.note -v bottom "$l/opt/perm/suid"
  setfattr -n trusted.note -v bottom "$l/opt/perm/suid"
  mkdir -m 2770 "$l/opt/acl/shared"
  chgrp 100 "$l/opt/acl/shared"
  setfacl -m u:1234:rwx,d:u:1234:rwx,d:g::r-x "$l/opt/acl/shared"
  echo acl >"$l/opt/acl/file"
  setfacl -m u:1234:r "$l/opt/acl/file"
  head -c 3000000 /dev/zero | tr '\0' 'x' >"$l/opt/big/file"
  truncate -s 50M "$l/opt/big/sparse"
  echo end >>"$l/opt/big/sparse"
}

seed_middle() {
  local l=$1
  mkdir -p "$l/opt/tree/a/b" "$l/opt/gone" "$l/opt/app"
  chmod 755 "$l/opt"
  mkdir -p "$l/etc"
  echo middle >"$l/etc/motd"
  echo file >"$l/opt/swap"
  mknod "$l/opt/tree/a/b/c" c 0 0
  echo middle >"$l/opt/tree/a/b/d"
  echo middle >"$l/opt/app/start"
  mkdir "$l/opt/app/middle"
  echo middle >"$l/opt/gone/file"
  chmod 750 "$l/opt/tree/a"
}

seed_top() {
  local l=$1
  mkdir -p "$l"/opt/{app/new,plyfs,tree/a/b/c} "$l/usr/share"
  echo top >"$l/opt/app/new/config"
  setfattr -n trusted.overlay.opaque -v y "$l/opt/app"
  mknod "$l/opt/gone" c 0 0
  mknod "$l/usr/share/obsolete" c 0 0
  echo again >"$l/opt/tree/a/b/c/again"
  setfattr -n trusted.overlay.opaque -v y "$l/opt/tree/a/b/c"
  chown 1234:1234 "$l/opt/tree/a"
  chmod 711 "$l/opt/tree/a"
  cp "$here/realroot.d/commands.sh" "$here/realroot.d/probe.c" "$l/opt/plyfs/"
}
