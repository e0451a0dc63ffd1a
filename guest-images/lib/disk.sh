# A GPT disk image laid out like Debian's official cloud images. Sourced by `build`.
#
#   p14  BIOS boot          1 MiB.. 3 MiB      GRUB's core image
#   p15  EFI system         4 MiB.. 124 MiB    FAT
#   p1   Linux root       128 MiB.. the end    ext4

need sfdisk:fdisk mke2fs:e2fsprogs

ROOT_START=262144 # sectors
BIOS_START=2048
ESP_START=8192
ESP_SECTORS=253952

# seeded_uuid WORDS: always the same UUID for the same words, so that builds can be compared.
seeded_uuid() {
    local hash
    hash=$(printf 'amiable guest image %s' "$*" | sha256sum)
    printf '%s-%s-4%s-8%s-%s\n' "${hash:0:8}" "${hash:8:4}" "${hash:12:3}" "${hash:15:3}" "${hash:18:12}"
}

# new_disk FILE MIB: an empty sparse disk with the partition table.
new_disk() {
    rm -f -- "$1"
    truncate -s "$2M" "$1"
    sfdisk --quiet --no-reread --no-tell-kernel "$1" <<END
label: gpt
label-id: $(seeded_uuid "$NAME" disk)
unit: sectors

p14 : start=$BIOS_START, size=6144, type=21686148-6449-6E6F-744E-656564454649, uuid=$(seeded_uuid "$NAME" bios)
p15 : start=$ESP_START, size=$ESP_SECTORS, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=$(seeded_uuid "$NAME" esp)
p1 : start=$ROOT_START, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=$(seeded_uuid "$NAME" root)
END
}

# root_mib MIB: size in MiB of the root partition of a disk of MIB (the last MiB holds the backup table).
root_mib() {
    printf '%s\n' $(($1 - ROOT_START / 2048 - 1))
}

# The features that Debian's cloud images of bookworm have.
EXT4_FEATURES=none,sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr,has_journal,extent,huge_file
EXT4_FEATURES+=,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize

# ext4_command FILE MIB DIRECTORY: prints the shell command that fills p1 of a disk of MIB from a directory. DIRECTORY
# is taken as shell text, for it may name a variable of a hook.
ext4_command() {
    printf '%s mke2fs -q -F -t ext4 -b 4096 -O %s -U %s -E offset=%s,hash_seed=%s -L "%s" -m 4 -d %s %q %sM' \
        "${SOURCE_DATE_EPOCH:+E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH}" \
        "$EXT4_FEATURES" "$(seeded_uuid "$NAME" filesystem)" "$((ROOT_START * 512))" \
        "$(seeded_uuid "$NAME" hash)" "${ROOT_LABEL:-}" "$3" "$1" "$(root_mib "$2")"
}

# le BYTES VALUE: VALUE as little-endian bytes on stdout.
le() {
    local i value=$2
    for ((i = 0; i < $1; i++)); do
        printf "\\x$(printf %02x $((value >> (8 * i) & 255)))"
    done
}

# patch FILE OFFSET: stdin over FILE at OFFSET bytes.
patch() {
    dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# bios_boot DISK BOOT.IMG CORE.IMG: what grub-bios-setup does, on a file: GRUB's boot sector learns where its core image
# lies (offset 0x5c), and skips the drive check that some firmware needs skipped (0x66); the core image's first sector
# learns where its rest lies (the block list at its end).
bios_boot() {
    local disk=$1 boot=$WORK/boot.img core=$WORK/core.img
    cp -- "$2" "$boot" && cp -- "$3" "$core" && chmod u+w "$boot" "$core"
    [[ $(stat -c %s "$core") -le $((6144 * 512)) ]] || die "GRUB's core image does not fit the BIOS boot partition"
    le 8 "$BIOS_START" | patch "$boot" $((0x5c))
    printf '\x90\x90' | patch "$boot" $((0x66))
    le 8 $((BIOS_START + 1)) | patch "$core" 500
    head -c 440 "$boot" | patch "$disk" 0
    dd if="$core" of="$disk" bs=512 seek="$BIOS_START" conv=notrunc status=none
}

# esp DISK DIRECTORY: an EFI system partition with the files of DIRECTORY.
esp() {
    need mkfs.vfat:dosfstools mcopy:mtools
    local fat=$WORK/esp.fat id
    id=$(seeded_uuid "$NAME" fat)
    truncate -s $((ESP_SECTORS * 512)) "$fat"
    mkfs.vfat -i "${id:0:8}" "$fat" >/dev/null
    MTOOLS_SKIP_CHECK=1 mcopy -s -i "$fat" "$2"/* ::/
    dd if="$fat" of="$1" bs=1M seek=$((ESP_START / 2048)) conv=notrunc,sparse status=none
    rm -f -- "$fat"
}
