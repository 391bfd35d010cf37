/* Does by system calls what shell commands cannot, and prints what it sees. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void say(const char *what, long result)
{
	printf("%s: %s\n", what, result < 0 ? strerror(errno) : "ok");
}

static void unlinked_file_lives(void)
{
	char buf[32] = "";
	struct stat st;
	int fd = open("victim", O_RDWR | O_CREAT, 0600);

	say("write", write(fd, "still here", 10));
	say("unlink", unlink("victim"));
	say("fstat", fstat(fd, &st));
	printf("links %ld size %ld\n", (long)st.st_nlink, (long)st.st_size);
	say("ftruncate", ftruncate(fd, 5));
	say("pread", pread(fd, buf, sizeof(buf) - 1, 0));
	printf("%s\n", buf);
	close(fd);
}

static void open_lower_survives_copy_up(const char *path)
{
	char before[8] = "", after[8] = "";
	int reader = open(path, O_RDONLY);
	int writer = open(path, O_RDWR);
	struct stat a, b;

	pread(reader, before, 4, 0);
	say("pwrite", pwrite(writer, "COPY", 4, 0));
	pread(writer, after, 4, 0);
	fstat(reader, &a);
	fstat(writer, &b);
	printf("%.4s -> %.4s, same inode: %d\n", before, after, a.st_ino == b.st_ino);
	close(reader);
	close(writer);
}

static void shared_mapping_is_written(void)
{
	int fd = open("mapped", O_RDWR | O_CREAT, 0644);
	char buf[5] = "";
	char *map;

	ftruncate(fd, 8192);
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		say("mmap", -1);
		return;
	}
	memcpy(map + 4094, "page", 4);
	msync(map, 8192, MS_SYNC);
	munmap(map, 8192);
	pread(fd, buf, 4, 4094);
	printf("mapped: %s\n", buf);
	close(fd);
}

static void directory_is_read_while_it_shrinks(void)
{
	struct dirent *entry;
	char name[32];
	int seen = 0, i;
	DIR *dir;

	mkdir("many", 0755);
	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "many/%04d", i);
		close(open(name, O_CREAT | O_WRONLY, 0644));
	}
	dir = opendir("many");
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		seen++;
		unlinkat(dirfd(dir), entry->d_name, 0);
	}
	closedir(dir);
	printf("listed %d\n", seen);
	say("rmdir", rmdir("many"));
}

int main(int argc, char **argv)
{
	if (argc != 2 || mkdir(argv[1], 0755) || chdir(argv[1]))
		return 1;
	unlinked_file_lives();
	open_lower_survives_copy_up("/etc/services.lower");
	shared_mapping_is_written();
	directory_is_read_while_it_shrinks();
	say("rename over a full directory",
	    (mkdir("a", 0755), mkdir("b", 0755), close(open("b/f", O_CREAT | O_WRONLY, 0600)), rename("a", "b")));
	say("rmdir of a full directory", rmdir("b"));
	say("rmdir of a lower directory", rmdir("/opt/lowerdir"));
	say("link of a directory", link("a", "c"));
	say("unlink of a directory", unlink("a"));
	return 0;
}
