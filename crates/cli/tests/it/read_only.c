/* Makes a folder read-only for the process that preloads it, while a file says so, also for what is open already: a
 * file system that turns itself read-only does that, and no mount option can be asked to do it here.
 *
 * READ_ONLY_FOLDER: the folder. READ_ONLY_WHILE: the file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int concerns(const char *path) {
    const char *folder = getenv("READ_ONLY_FOLDER"), *flag = getenv("READ_ONLY_WHILE");
    if (!folder || !flag || strncmp(path, folder, strlen(folder)) != 0) return 0;
    return syscall(SYS_faccessat, AT_FDCWD, flag, F_OK) == 0;
}

static int concerns_open(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return concerns(path);
}

#define REFUSE(when) if (when) { errno = EROFS; return -1; }
#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *data, size_t length) {
    REFUSE(concerns_open(fd));
    return NEXT(ssize_t (*)(int, const void *, size_t), "write")(fd, data, length);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    REFUSE(concerns_open(fd));
    return NEXT(ssize_t (*)(int, const void *, size_t, off_t), "pwrite")(fd, data, length, at);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    REFUSE(concerns_open(fd));
    return NEXT(ssize_t (*)(int, const void *, size_t, off64_t), "pwrite64")(fd, data, length, at);
}

static int refuses(const char *path, int flags) {
    return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && concerns(path);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    REFUSE(refuses(path, flags));
    return NEXT(int (*)(const char *, int, mode_t), "open")(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    REFUSE(refuses(path, flags));
    return NEXT(int (*)(const char *, int, mode_t), "open64")(path, flags, mode);
}
