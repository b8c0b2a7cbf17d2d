/* Preloaded, it lets writes below a folder fail: `failing(folder, at, count, errno)` from the `at`-th write on, `count`
   of them (-1: all). `failed()` says how many writes there were since, which is also how to turn it off (at = 0). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static int at, count, number, seen;

void failing(const char *where, int first, int many, int code) {
  strncpy(folder, where, sizeof folder - 1);
  at = first, count = many, number = code;
  __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
}

int failed(void) { return __atomic_load_n(&seen, __ATOMIC_SEQ_CST); }

static int fails(int file) {
  char link[64], path[4096];
  if (!folder[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder))) return 0;
  int now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  return at && now >= at && (count < 0 || now < at + count);
}

#define FAIL_OR(name, type, parameters, arguments)                      \
  type name parameters {                                                \
    static type(*real) parameters;                                      \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);      \
    if (fails(file)) return errno = number, -1;                         \
    return real arguments;                                              \
  }

FAIL_OR(write, ssize_t, (int file, const void *data, size_t size), (file, data, size))
FAIL_OR(pwrite, ssize_t, (int file, const void *data, size_t size, off_t where), (file, data, size, where))
FAIL_OR(pwrite64, ssize_t, (int file, const void *data, size_t size, off64_t where), (file, data, size, where))
FAIL_OR(writev, ssize_t, (int file, const struct iovec *parts, int many), (file, parts, many))
FAIL_OR(pwritev, ssize_t, (int file, const struct iovec *parts, int many, off_t where), (file, parts, many, where))
FAIL_OR(fsync, int, (int file), (file))
FAIL_OR(fdatasync, int, (int file), (file))
