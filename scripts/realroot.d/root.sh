# Part of scripts/realroot: makes the Debian root file system and keeps it in the cache.
# shellcheck shell=bash disable=SC2154

cache=${PLYFS_CACHE:-/var/cache/plyfs-test}

# What the root file system holds beyond the essential packages and apt.
packages=acl,adduser,attr,e2fsprogs,libc6-dev,libcap2-bin,passwd,perl-base,sensible-utils,tcc
[ "${size:-small}" = small ] || packages+=,gcc,git,make,python3-minimal
# What is installed later, in the mount: maintainer scripts, a setuid program, file capabilities,
# alternatives, conffiles, a new group; passwd a second time, over setuid files of the lower.
later='hello iputils-ping less sudo cron cron-daemon-common passwd'

install_programs() {
  local missing=() pair
  for pair in mmdebstrap:mmdebstrap setfattr:attr setfacl:acl setcap:libcap2-bin \
              chattr:e2fsprogs unshare:util-linux; do
    PATH=$PATH:/usr/sbin:/sbin type -P "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} = 0 ] || {
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
      >/dev/null
  }
}

# The machine's own apt sources for its release: nothing here knows a host name.
apt_sources() {
  local suite="(^|[[:space:]])$1([[:space:]]|\$)"
  if [ -n "${PLYFS_APT_SOURCES:-}" ]; then
    printf '%s\n' "$PLYFS_APT_SOURCES"
    return
  fi
  grep -lsE "$suite" /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
    /etc/apt/sources.list.d/*.sources || true
}

make_root() {
  local codename key sources
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  [ -n "$codename" ] || stop "/etc/os-release names no Debian release"
  mkdir -p "$cache"
  key=$(printf '%s' "$codename $packages $later 1" | sha256sum | cut -c1-12)
  root_tar=$cache/root-$size-$codename-$key.tar
  exec 9>"$cache/lock"
  flock 9
  if [ ! -f "$root_tar" ]; then
    mapfile -t sources < <(apt_sources "$codename")
    [ ${#sources[@]} -gt 0 ] || stop "no apt source for $codename; set PLYFS_APT_SOURCES to a file"
    say "making a $codename root file system (kept in $cache)"
    mmdebstrap --quiet --format=tar --variant=apt --include="$packages" \
      --customize-hook="mkdir -p \"\$1/opt/debs\"" \
      --customize-hook="chroot \"\$1\" sh -c 'cd /opt/debs && apt-get -qq download $later'" \
      "$codename" "$root_tar.new" "${sources[@]}" >"$cache/mmdebstrap.log" 2>&1 ||
      { tail -n 20 "$cache/mmdebstrap.log" >&2; stop "mmdebstrap failed"; }
    mv "$root_tar.new" "$root_tar"
  fi
  flock -u 9
  exec 9>&-
}
