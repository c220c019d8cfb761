/* A disk that can lose power, fill up and fail, for the files of one SQLite database.
 *
 * Preloaded into a worker. For the database and its write-ahead log it keeps, beside each file, a log of every write
 * since the file was last synced: what was there before, and what came. kill -9 leaves that log behind, so that the
 * file can be put back to what a disk would have kept (fault_disk.py, power_cut). Faults are asked for through a small
 * file of counters shared with the test.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DATABASE = 1, WAL = 2, SHM = 4 };

/* the counters, in the order of fault_disk.py; kinds are the masks above */
struct control {
  int64_t space;             /* bytes that files may still grow by; negative: no limit */
  int64_t space_kinds;       /* the files whose growth is limited */
  int64_t fail_write;        /* 1: the next write fails with EIO, 2: the one after it, ...; 0: none */
  int64_t fail_sync;         /* likewise for fsync */
  int64_t fail_kinds;        /* the files whose writes and syncs are counted for the two */
  int64_t die_at;            /* 1: SIGKILL instead of the next write or sync of database or WAL, ...; 0: never */
  int64_t operations;        /* writes and syncs of database and WAL so far */
  int64_t syncs;             /* successful syncs of database and WAL */
  int64_t sync_failures;     /* syncs that failed */
  int64_t syncs_after;       /* syncs asked for on a file whose sync had failed */
};

static struct control *control;
static char prefix[4096];
static size_t prefix_length;
static unsigned char kinds[65536];
static int undo[3] = {-1, -1, -1};
static int64_t failed_kinds;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))(real_##name ? real_##name : (real_##name = dlsym(RTLD_NEXT, #name))))
#define DECLARE(name) static void *real_##name
DECLARE(open64); DECLARE(open); DECLARE(close); DECLARE(pwrite64); DECLARE(write); DECLARE(ftruncate64);
DECLARE(fsync); DECLARE(fdatasync); DECLARE(unlink);

static int kind_of(const char *path) {
  if (!control || strncmp(path, prefix, prefix_length) != 0) return 0;
  const char *rest = path + prefix_length;
  if (*rest == 0) return DATABASE;
  if (strcmp(rest, "-wal") == 0) return WAL;
  if (strcmp(rest, "-shm") == 0) return SHM;
  return 0;
}

static int kind_of_fd(int fd) { return fd >= 0 && fd < 65536 ? kinds[fd] : 0; }

/* Called by the worker through ctypes, before it opens the database. */
int fault_disk_attach(const char *database, const char *counters) {
  int fd = REAL(open64)(counters, O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno;
  void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REAL(close)(fd);
  if (map == MAP_FAILED) return errno;
  prefix_length = strlen(database);
  if (prefix_length + 1 > sizeof prefix) return ENAMETOOLONG;
  memcpy(prefix, database, prefix_length + 1);
  control = map;
  return 0;
}

static int undo_of(int kind) {
  if (undo[kind] < 0) {
    char path[4200];
    snprintf(path, sizeof path, "%s%s.undo", prefix, kind == WAL ? "-wal" : "");
    undo[kind] = REAL(open64)(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (undo[kind] < 0) abort();
  }
  return undo[kind];
}

/* One entry: how large the file was, where the change begins, what was there, what came. */
static void remember(int kind, int fd, off_t offset, const void *data, size_t length, int truncates) {
  struct stat st;
  if (fstat(fd, &st) != 0) abort();
  int64_t old_length = 0;
  if (offset < st.st_size) {
    old_length = st.st_size - offset;
    if (!truncates && old_length > (int64_t)length) old_length = (int64_t)length;
  }
  char *old = malloc(old_length ? old_length : 1);
  if (!old || pread(fd, old, old_length, offset) != old_length) abort();
  int64_t header[5] = {truncates ? 2 : 1, st.st_size, offset, old_length, truncates ? 0 : (int64_t)length};
  struct iovec parts[3] = {{header, sizeof header}, {old, old_length}, {(void *)data, truncates ? 0 : length}};
  ssize_t total = sizeof header + parts[1].iov_len + parts[2].iov_len;
  if (writev(undo_of(kind), parts, 3) != total) abort();
  free(old);
}

static int strikes(int64_t *countdown) {
  if (*countdown <= 0) return 0;
  *countdown -= 1;
  return *countdown == 0;
}

static void count_operation(void) {
  control->operations++;
  if (strikes(&control->die_at)) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
}

static ssize_t tracked_write(int kind, int fd, const void *data, size_t length, off_t offset) {
  struct stat st;
  if (kind != SHM) count_operation();
  if ((control->fail_kinds & kind) && strikes(&control->fail_write)) {
    errno = EIO;
    return -1;
  }
  if (control->space >= 0 && (control->space_kinds & kind)) {
    if (fstat(fd, &st) != 0) return -1;
    int64_t growth = offset + (off_t)length - st.st_size;
    if (growth > 0) {
      if (growth > control->space) {
        /* like a real disk: what fits is written, and only the next call is refused */
        int64_t fits = (int64_t)length - growth + control->space;
        if (fits <= 0) {
          errno = ENOSPC;
          return -1;
        }
        length = fits;
        growth = control->space;
      }
      control->space -= growth;
    }
  }
  if (kind != SHM) remember(kind, fd, offset, data, length, 0);
  return REAL(pwrite64)(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
  int kind = kind_of_fd(fd);
  if (!kind) return REAL(pwrite64)(fd, data, length, offset);
  pthread_mutex_lock(&mutex);
  ssize_t written = tracked_write(kind, fd, data, length, offset);
  int error = errno;
  pthread_mutex_unlock(&mutex);
  errno = error;
  return written;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
  int kind = kind_of_fd(fd);
  if (!kind) return REAL(write)(fd, data, length);
  off_t offset = lseek(fd, 0, SEEK_CUR);
  ssize_t written = pwrite64(fd, data, length, offset);
  if (written > 0) lseek(fd, offset + written, SEEK_SET);
  return written;
}

int ftruncate64(int fd, off64_t length) {
  int kind = kind_of_fd(fd);
  if (!kind || kind == SHM) return REAL(ftruncate64)(fd, length);
  pthread_mutex_lock(&mutex);
  count_operation();
  remember(kind, fd, length, "", 0, 1);
  int result = REAL(ftruncate64)(fd, length);
  pthread_mutex_unlock(&mutex);
  return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

/* The page cache outlives the worker, so the log is all that has to be durable; the real sync is left out for speed. */
static int sync_file(int kind) {
  int result = 0;
  pthread_mutex_lock(&mutex);
  count_operation();
  if (failed_kinds & kind) control->syncs_after++;
  if ((control->fail_kinds & kind) && strikes(&control->fail_sync)) {
    failed_kinds |= kind;
    control->sync_failures++;
    errno = EIO;
    result = -1;
  } else {
    control->syncs++;
    if (ftruncate64(undo_of(kind), 0) != 0) abort();
  }
  pthread_mutex_unlock(&mutex);
  if (result) errno = EIO;
  return result;
}

int fsync(int fd) {
  int kind = kind_of_fd(fd);
  return kind && kind != SHM ? sync_file(kind) : REAL(fsync)(fd);
}

int fdatasync(int fd) {
  int kind = kind_of_fd(fd);
  return kind && kind != SHM ? sync_file(kind) : REAL(fdatasync)(fd);
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
  va_end(arguments);
  int fd = REAL(open64)(path, flags, mode);
  if (fd >= 0 && fd < 65536) kinds[fd] = kind_of(path);
  return fd;
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
  va_end(arguments);
  int fd = REAL(open)(path, flags, mode);
  if (fd >= 0 && fd < 65536) kinds[fd] = kind_of(path);
  return fd;
}

int close(int fd) {
  if (fd >= 0 && fd < 65536) kinds[fd] = 0;
  return REAL(close)(fd);
}

int unlink(const char *path) {
  int kind = kind_of(path);
  if (kind == WAL || kind == DATABASE) {
    pthread_mutex_lock(&mutex);
    if (ftruncate64(undo_of(kind), 0) != 0) abort();
    pthread_mutex_unlock(&mutex);
  }
  return REAL(unlink)(path);
}
