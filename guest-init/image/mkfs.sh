# Copies the folder $1 into a new ext4 file system in the file $2. Nothing is mounted; whoever runs this must be
# root there (of a namespace is enough), so that every file keeps its owner.
set -eu
umask 077
cd "$1"
# Mounted over in a sandbox.
find dev proc sys run tmp -mindepth 1 -xdev -delete

# As many blocks and inodes as there are things, and some; what stays unused takes no room in a sparse file.
inodes=$(find . -xdev -printf x | wc -c)
blocks=$(find . -xdev \( -type f -o -type d \) -printf '%s\n' | awk '{ n += int(($1 + 4095) / 4096) } END { print n }')
inodes=$((inodes + inodes / 20 + 1000))
blocks=$((blocks + inodes / 16 + blocks / 50 + 16384))

# Features that Linux 6.1 has and that a file system which is only read has a use for: no journal, no checksums.
features=none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,resize_inode
mke2fs -q -F -t ext4 -b 4096 -I 256 -N "$inodes" -m 0 -L skerry-root -O "$features" \
	-E lazy_itable_init=0,root_owner=0:0 -d . "$2" "$blocks"
e2fsck -fn "$2"
