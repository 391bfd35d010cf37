# shellcheck shell=sh
# What is done in the merged root file system, by chroot. Everything here gives the same result
# each time, but for the times at which it writes. What programs see goes to /root/seen, which
# the comparison reads like any other file.
set -o errexit -o nounset
seen=/root/seen
mkdir -p /root
: >$seen
umask 022

# Packages: with the resolver, with dpkg alone, over files of the lowers, and away again.
dpkg="--log=/dev/null"
apt="-y -q -o Dir::Log::Terminal=/dev/null -o Dir::Log::History=/dev/null -o DPkg::Options::=$dpkg
 -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= --no-install-recommends"
# shellcheck disable=SC2086
apt-get $apt install /opt/debs/iputils-ping_*.deb /opt/debs/less_*.deb /opt/debs/sudo_*.deb \
  /opt/debs/cron_*.deb /opt/debs/cron-daemon-common_*.deb
dpkg $dpkg -i /opt/debs/hello_*.deb
dpkg $dpkg -i /opt/debs/passwd_*.deb
hello >>$seen
getcap /bin/ping /usr/bin/ping /opt/perm/capable >>$seen
dpkg $dpkg --purge hello
dpkg --verify >>$seen 2>&1 || echo "dpkg --verify: $?" >>$seen

# Users.
useradd -m -u 1234 -s /bin/sh tester
groupadd -g 2345 crew
usermod -aG crew tester
su tester -c 'id; echo mine >~/file; cat /opt/acl/file; touch /etc/denied 2>&1 || echo refused' >>$seen
userdel -r games 2>/dev/null || true

# Lower trees: removed, made anew, moved.
rm -rf /usr/share/doc /usr/share/locale
mkdir /usr/share/doc
echo fresh >/usr/share/doc/README
rm -rf /opt/app
mkdir -p /opt/app/again
mv /usr/share/perl5 /opt/perl5 2>/dev/null || true
mv /usr/include /opt/include
mv /opt/include /usr/include
mv /opt/swap /opt/swapped
mkdir /opt/swap
mv /etc/motd /etc/motd.old
mv /etc/issue.net /etc/motd
mkdir -p /opt/upper/sub/deep
echo 1 >/opt/upper/sub/deep/file
mv /opt/upper /opt/elsewhere
mv /opt/elsewhere/sub /srv/sub
mv /opt/tree/a/b/c/again /opt/tree/a/b/d
find /opt/tree/a/b /opt/app -printf '%p %y %m %u %g\n' | sort >>$seen

# Modes, capabilities, ACLs, xattrs, special files.
cp /bin/true /opt/perm/suid2
chmod 6755 /opt/perm/suid2
setcap cap_net_raw+ep /opt/perm/suid2
chmod 2711 /opt/perm/capable
echo more >>/opt/perm/suid
chown 1234:2345 /opt/perm/suid2
setfacl -m u:1234:rw,g:2345:r /opt/acl/file
echo inherited >/opt/acl/shared/file
mkdir /opt/acl/shared/dir
setfacl -b /opt/acl/shared/dir
find /opt/acl | sort | xargs getfacl -p >>$seen
setfattr -n user.note -v changed /opt/perm/suid
setfattr -n user.new -v 1 /opt/perm
setfattr -x trusted.note /opt/perm/suid
getfattr -d -m - /opt/perm/* >>$seen 2>&1
rm /opt/perm/fifo
mkfifo -m 640 /opt/perm/fifo
mknod /opt/perm/disk b 7 99
echo discarded >/opt/perm/null

# Links, of the lowers and new ones.
ln /opt/links/two /opt/links/four
echo changed >>/opt/links/three
rm /opt/links/one
ln -s /etc/motd /opt/links/absolute
ln /etc/hostname /etc/hostname.link 2>/dev/null || true
echo again >/opt/new1
ln /opt/new1 /opt/new2
ln /opt/new1 /opt/links/new3
rm /opt/new2
stat -c '%n %h %s' /opt/links/* /opt/new1 >>$seen

# Large and sparse files.
printf tail >>/opt/big/file
printf X | dd of=/opt/big/file bs=1 seek=1000000 conv=notrunc status=none
truncate -s 2500000 /opt/big/file
printf Y | dd of=/opt/big/sparse bs=1 seek=20000000 conv=notrunc status=none
sha256sum /opt/big/* >>$seen
cp --sparse=always /opt/big/sparse /opt/big/copy

# Archives.
mkdir /srv/unpacked
tar -C /usr -cf /srv/include.tar --sort=name --mtime=@1700000000 --clamp-mtime include
tar -C /srv/unpacked -xpf /srv/include.tar
tar -C /usr --xattrs --acls -cf - sbin 2>/dev/null | tar -C /srv/unpacked --xattrs -xpf -
gzip -n /srv/include.tar
find /srv/unpacked | sort | sha256sum >>$seen

# Programs.
cd /opt/plyfs
tcc -o probe probe.c
./probe /srv/probe >>$seen
if [ "$SIZE" = full ]; then
  gcc -O2 -o probe.gcc probe.c
  ./probe.gcc /srv/probe.gcc >>$seen
  git -c init.defaultBranch=main init -q /srv/repo
  cp -r /usr/include/linux /srv/repo/
  cd /srv/repo
  git add .
  GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' \
    git -c user.name=t -c user.email=t@t commit -q -m one
  git fsck --strict >>$seen 2>&1
  git gc -q --prune=now
  git log --format='%H %T' >>$seen
  # The index and the pack hold times and inode numbers.
  rm -rf .git/index .git/objects
fi

# apt makes temporary files without a name (O_TMPFILE) where the file system can; where it cannot,
# they have a name for a moment and so change the time of /tmp.
touch /tmp

# What holds times, numbers or the order of things that nobody ordered.
rm -f /var/cache/ldconfig/aux-cache
find /var/log -type f -exec truncate -s 0 {} +
sync
