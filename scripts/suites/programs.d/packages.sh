# Part of scripts/suites/programs: the databases of dpkg and rpm lie in a lower layer and are rewritten.
# shellcheck shell=bash disable=SC2154

# make_deb VERSION: a package without scripts, at $dir/plyfs-suite.deb.
make_deb() {
  rm -rf "$dir/deb"
  mkdir -p "$dir/deb/DEBIAN" "$dir/deb/opt/plyfs-suite"
  printf '%s\n' 'Package: plyfs-suite' "Version: $1" 'Architecture: all' 'Maintainer: suite <s@example.org>' \
    'Description: a package of the suite' >"$dir/deb/DEBIAN/control"
  echo /opt/plyfs-suite/conf >"$dir/deb/DEBIAN/conffiles"
  echo "version $1" | tee "$dir/deb/opt/plyfs-suite/conf" >"$dir/deb/opt/plyfs-suite/file-$1"
  dpkg-deb --build --root-owner-group "$dir/deb" "$dir/plyfs-suite.deb" >/dev/null
}

part_dpkg() {
  type -P dpkg-deb >/dev/null || stop "needs dpkg"
  new_stack dpkg
  mkdir -p "$dir/lower/var/lib"
  # The database of this machine; it counts as the one of a root file system in the layer.
  cp -a /var/lib/dpkg "$dir/lower/var/lib/dpkg"
  rm -f "$dir"/lower/var/lib/dpkg/{lock*,triggers/Lock}
  local packages words=(--force-not-root --force-script-chrootless --force-depends --no-triggers --log=/dev/null)
  packages=$(dpkg-query --admindir="$dir/lower/var/lib/dpkg" -W -f '${Package}\n' | wc -l)
  begin
  # Somebody reads the old database all the time.
  exec 8<"$mnt/var/lib/dpkg/status"
  make_deb 1
  dpkg --root="$mnt" "${words[@]}" -i "$dir/plyfs-suite.deb" >"$dir/log" 2>&1 || fail "dpkg -i: $(tail -n 5 "$dir/log")"
  expect "the file of the package" 'version 1' "$(cat "$mnt/opt/plyfs-suite/file-1")"
  make_deb 2
  dpkg --root="$mnt" "${words[@]}" -i "$dir/plyfs-suite.deb" >"$dir/log" 2>&1 || fail "dpkg -i, again: $(tail -n 5 "$dir/log")"
  [ ! -e "$mnt/opt/plyfs-suite/file-1" ] || fail "the file of the old version is still there"
  expect "the packages" $((packages + 1)) "$(dpkg-query --admindir="$mnt/var/lib/dpkg" -W -f '${Package}\n' | wc -l)"
  expect "dpkg --verify" '' "$(dpkg --root="$mnt" --verify plyfs-suite)"
  dpkg --root="$mnt" "${words[@]}" --purge plyfs-suite >"$dir/log" 2>&1 || fail "dpkg --purge: $(tail -n 5 "$dir/log")"
  [ ! -e "$mnt/opt/plyfs-suite" ] || fail "purged, the directory is still there"
  expect "the packages at last" "$packages" "$(dpkg-query --admindir="$mnt/var/lib/dpkg" -W -f '${Package}\n' | wc -l)"
  # It has been replaced by renames, so who has it open has the old one.
  expect "the reader of the old database" "$(sha256sum <"$dir/lower/var/lib/dpkg/status")" "$(sha256sum <&8)"
  exec 8<&-
  end
}

# make_rpm VERSION: a package, at $dir/plyfs-suite-VERSION.rpm.
make_rpm() {
  cat >"$dir/spec" <<END
Name: plyfs-suite
Version: $1
Release: 1
Summary: A package of the suite
License: MIT
BuildArch: noarch
%description
A package of the suite.
%install
mkdir -p %{buildroot}/opt/plyfs-suite
echo version $1 >%{buildroot}/opt/plyfs-suite/file-$1
%files
/opt/plyfs-suite
END
  rpmbuild --quiet -bb --define "_topdir $dir/rpm" "$dir/spec" >"$dir/log" 2>&1 || fail "rpmbuild: $(tail -n 5 "$dir/log")"
  cp "$dir"/rpm/RPMS/noarch/plyfs-suite-"$1"-1*.rpm "$dir/plyfs-suite-$1.rpm"
}

# Debian's rpm says at each call that it is not meant to be used; its errors count alone.
part_rpm() {
  need_programs rpmbuild:rpm
  new_stack rpm
  make_rpm 1
  make_rpm 2
  make_rpm 3
  mkdir -p "$dir/lower/db"
  local rpm=(rpm --dbpath "$dir/lower/db")
  "${rpm[@]}" --initdb
  "${rpm[@]}" -i --justdb --nodeps "$dir/plyfs-suite-1.rpm" || fail "rpm -i into the layer"
  # Rebuilding puts a new directory in the place of the old one, which is a rename of a lower one.
  local options=${options:+$options,}redirect_dir=on
  begin
  rpm=(rpm --dbpath "$mnt/db")
  expect "what the layer has" plyfs-suite-1-1.noarch "$("${rpm[@]}" -qa)"
  # A reader holds the database open over its copy-up.
  exec 8<"$mnt/db/rpmdb.sqlite"
  "${rpm[@]}" -U --justdb --nodeps "$dir/plyfs-suite-2.rpm" || fail "rpm -U"
  "${rpm[@]}" -U --justdb --nodeps "$dir/plyfs-suite-3.rpm" || fail "rpm -U, again"
  expect "what is installed" plyfs-suite-3-1.noarch "$("${rpm[@]}" -qa)"
  "${rpm[@]}" --rebuilddb || fail "rpm --rebuilddb"
  expect "what is there after that" plyfs-suite-3-1.noarch "$("${rpm[@]}" -qa)"
  "${rpm[@]}" -e --justdb plyfs-suite || fail "rpm -e"
  expect "what is left" '' "$("${rpm[@]}" -qa)"
  exec 8<&-
  end
}
