# A Debian AMI. Sourced by a recipe that set SUITE, DISK_MIB, ESP_MOUNT and RESOLV_CONF.

need mmdebstrap:mmdebstrap mkfs.vfat:dosfstools mcopy:mtools tar:tar

OUTPUT=${OUTPUT:-$NAME.raw}
disk=$SHARED/disk.raw
packages=$(sed 's/#.*//' "$HERE/$NAME/packages" | tr -s ' \n' ',')
packages=${packages#,}
packages=${packages%,}
debs=$CACHE/debs-$SUITE
mkdir -p "$debs"

# The values that configure-debian needs, as shell text it reads first.
cat >"$WORK/values" <<END
SUITE=$SUITE
ROOT_PARTUUID=$(seeded_uuid "$NAME" root)
ROOT_UUID=$(seeded_uuid "$NAME" filesystem)
ESP_PARTUUID=$(seeded_uuid "$NAME" esp)
ESP_MOUNT='$ESP_MOUNT'
RESOLV_CONF='$RESOLV_CONF'
END
cat "$WORK/values" "$HERE/lib/configure-debian" >"$WORK/configure"

# /proc, /sys and /dev are mounted on the tree while hooks run: a plain (not recursive) bind mount shows it without them.
# Where mounting is not allowed, mmdebstrap has mounted nothing either.
mkdir "$SHARED/view"
to_ext4="tree=\$1; if mount --bind \"\$1\" $SHARED/view 2>/dev/null; then tree=$SHARED/view; rm -rf $SHARED/view/dev/*; fi 2>/dev/null
$(ext4_command "$disk" "$DISK_MIB" '"$tree"')
status=\$?; umount $SHARED/view 2>/dev/null; exit \$status"

new_disk "$disk" "$DISK_MIB"
chmod 0666 "$disk"

# The tree never leaves mmdebstrap's namespace, where every file has its real owner: the last hook turns it into the
# file system. `sync-in` and `sync-out` keep downloaded packages between builds.
say "$NAME: installing Debian $SUITE from $(debian_mirror)"
debian_sources "$SUITE" | TMPDIR=$WORK mmdebstrap \
    --quiet --variant=minbase --architectures=amd64 --format=null \
    --include="$packages" \
    --dpkgopt=force-unsafe-io \
    --aptopt='Acquire::Retries "3"' \
    --skip=essential/unlink,cleanup \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
    --setup-hook="sync-in $debs /var/cache/apt/archives/" \
    --setup-hook='mkdir -p "$1/etc/grub.d" && : >"$1/etc/kernel-img.conf" && echo "do_symlinks = no" >"$1/etc/kernel-img.conf"' \
    --customize-hook="sync-out /var/cache/apt/archives $debs" \
    --customize-hook="upload $WORK/configure /run/configure" \
    --customize-hook='chroot "$1" sh -eu /run/configure' \
    --customize-hook="download /boot/grub/i386-pc/boot.img $WORK/grub-boot.img" \
    --customize-hook="download /boot/grub/i386-pc/core.img $WORK/grub-core.img" \
    --customize-hook="download /run/esp.tar $WORK/esp.tar" \
    --customize-hook='rm -rf "$1"/run/* "$1"/tmp/* "$1"/var/tmp/*' \
    --customize-hook="$to_ext4" \
    "$SUITE" /dev/null - || die "mmdebstrap could not build the tree (its message is above)"
rm -rf -- "$debs/partial" "$debs/lock"

# Without privileges there are no device nodes, and mmdebstrap left empty files for them in /dev, which must not be there.
partition="$disk?offset=$((ROOT_START * 512))"
debugfs -R 'ls -p /dev' "$partition" 2>/dev/null | sed -n 's|^/[0-9]*/1[0-9]*/[0-9]*/[0-9]*/\([^/]*\)/.*|rm /dev/\1|p' \
    >"$WORK/placeholders"
[[ ! -s $WORK/placeholders ]] || debugfs -w -f "$WORK/placeholders" "$partition" >/dev/null 2>&1 ||
    die "debugfs could not empty /dev"

mkdir "$WORK/esp"
tar -xf "$WORK/esp.tar" -C "$WORK/esp"
cp --sparse=always -- "$disk" "$OUTPUT.part"
esp "$OUTPUT.part" "$WORK/esp"
bios_boot "$OUTPUT.part" "$WORK/grub-boot.img" "$WORK/grub-core.img"
mv -- "$OUTPUT.part" "$OUTPUT"
