/* Stands between a program and its disk (LD_PRELOAD).
 *
 * BAD_DISK_FLUSH_US: how much longer every flush takes, in microseconds.
 * BAD_DISK_FLUSHES: a file that grows by one byte with every flush.
 * BAD_DISK_FAULT: a file. While it is there, its first character says what fails: 'f' flushes, with EIO, 'w' writes that
 * have a position, with ENOSPC, 'r' the same with EROFS, as on a disk that was mounted again to be read only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char fault(void) {
    const char *path = getenv("BAD_DISK_FAULT");
    char kind = 0;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        if (read(fd, &kind, 1) != 1)
            kind = 0;
        close(fd);
    }
    return kind;
}

static void count_flush(void) {
    const char *path = getenv("BAD_DISK_FLUSHES");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        if (write(fd, "f", 1) != 1)
            abort();
        close(fd);
    }
}

static int flush_fails(void) {
    const char *us = getenv("BAD_DISK_FLUSH_US");
    count_flush();
    if (us) {
        long nanoseconds = atol(us) * 1000L;
        struct timespec pause = {nanoseconds / 1000000000L, nanoseconds % 1000000000L};
        nanosleep(&pause, NULL);
    }
    if (fault() != 'f')
        return 0;
    errno = EIO;
    return 1;
}

static int write_fails(void) {
    char kind = fault();
    if (kind != 'w' && kind != 'r')
        return 0;
    errno = kind == 'w' ? ENOSPC : EROFS;
    return 1;
}

int fsync(int fd) { return flush_fails() ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return flush_fails() ? -1 : NEXT(fdatasync)(fd); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    return write_fails() ? -1 : NEXT(pwrite)(fd, data, length, at);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    return write_fails() ? -1 : NEXT(pwrite64)(fd, data, length, at);
}
