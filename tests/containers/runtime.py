"""Containers without a daemon: buildah builds the image, crun runs it, as Docker and Kubernetes would.

Runs as root in namespaces of its own, see `enter`. What it mounts and starts ends with it. PHP's image cannot be built without a
registry, so this machine's php-fpm stands in for it: `php_root` has its files at the places where they are in the image.
"""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# What Docker leaves to root in a container.
DOCKER_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
                       "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"]
PATIENCE_S = 20
# The status if nothing could be tried.
NOT_ALLOWED = 77
# The newest php-fpm of this machine. The image has no php.ini, so its sessions are in /tmp.
PHP_FPM = [*map(str, sorted(pathlib.Path("/usr/sbin").glob("php-fpm[78]*"))[-1:]), "-d", "session.save_path=/tmp"]


def enter():
    """Runs this program again with its own mounts, processes and network, and returns there: its root folder for temporary files."""
    if os.environ.get("IN_NAMESPACES") != "yes":
        for program in ["buildah", "crun", "unshare", "ip", PHP_FPM[0]]:
            if shutil.which(program) is None:
                sys.exit(f"{program} is not installed (tests/install-deps.sh test)")
        unshare = ["unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child"]
        try_it = subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"], capture_output=True, text=True)
        if try_it.returncode != 0:
            print(f"this machine does not allow containers, or not for this user: {try_it.stderr.strip()}", file=sys.stderr)
            sys.exit(NOT_ALLOWED)
        # So that the folder is removed then too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
        with tempfile.TemporaryDirectory(prefix="longwire-containers.") as folder:
            environment = os.environ | {"IN_NAMESPACES": "yes", "TMPDIR": folder}
            sys.exit(subprocess.run([*unshare, sys.executable, *sys.argv], env=environment).returncode)
    run("ip", "link", "set", "lo", "up")
    # crun refuses a mixture of both versions of control groups, which it is told not to use anyway.
    run("mount", "-t", "tmpfs", "none", "/sys/fs/cgroup")
    # All files are gone with the namespace. Its folder is also seen by the other users.
    folder = pathlib.Path(os.environ["TMPDIR"])
    folder.chmod(0o755)
    return folder


def run(*command, **options):
    """Runs a command, and returns its standard output. Ends the test if the command fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, **options)
    check(done.returncode == 0, f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(is_true, problem):
    if not is_true:
        sys.exit(f"FAILED: {problem}")


def wait_until(what, is_true):
    until = time.monotonic() + PATIENCE_S
    while not (value := is_true()):
        check(time.monotonic() < until, f"waited {PATIENCE_S} s, but it did not happen: {what}")
        time.sleep(0.02)
    return value


class Image:
    """The image that docker/Dockerfile describes, around a binary that is there already."""

    def __init__(self, binary, folder):
        laid_out, binary, built = folder / "image-root", folder / "longwire", binary
        run("strip", "-o", binary, built)
        run("sh", REPOSITORY / "docker/image-root.sh", laid_out, binary, "/etc/ssl/certs/ca-certificates.crt",
            REPOSITORY / "docker/longwire.toml")
        # ldd fails for some static binaries.
        said = subprocess.run(["ldd", binary], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.split()
        libraries = [word for word in said if word.startswith("/") and pathlib.Path(word).is_file()]
        self.is_static = not libraries
        # A binary of the tests is linked dynamically, so it needs its libraries too. That of a release does not.
        for library in libraries:
            target = laid_out / "files" / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
        self._buildah = ["buildah", "--root", folder / "store", "--runroot", folder / "runroot", "--storage-driver", "vfs"]
        # The stages that compile are skipped, because `root` is given.
        self._run("bud", "--isolation", "chroot", "--format", "docker", "--build-context", f"root={laid_out}", "--tag", "longwire",
                  "--file", REPOSITORY / "docker/Dockerfile", REPOSITORY)
        described = json.loads(self._run("inspect", "--type", "image", "longwire"))
        self.config = json.loads(described["Config"])["config"]
        self.bytes = sum(layer["size"] for layer in json.loads(described["Manifest"])["layers"])
        self.root = pathlib.Path(self._run("mount", self._run("from", "longwire").strip()).strip())
        self.user = tuple(int(number) for number in self.config["User"].split(":"))
        test = self.config["Healthcheck"]["Test"]
        check(test[0] == "CMD", f"there is no shell for the health check {test}")
        self.health = test[1:]

    def _run(self, *arguments):
        return run(*self._buildah, *arguments)


class Container:
    """One container. `mounts` are (source, destination, options), `user` is (uid, gid), as in the image or the compose file."""

    def __init__(self, name, root, args, folder, *, user=(0, 0), groups=(), env=None, mounts=(), read_only=False,
                 capabilities=(), no_new_privileges=False, files=65536, network=None):
        self.name, self.folder = name, folder / f"container-{name}"
        # A daemon of Docker may have more files than this machine gives to root here.
        files = min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        self._runtime = ["crun", "--root", folder / "crun", "--cgroup-manager=disabled"]
        self.folder.mkdir(exist_ok=True)
        mounts = list(mounts)
        make_mount_points(root, mounts)
        # Without a network of its own it shares that of the test.
        networks = [{"type": "network", "path": network}] if network else []
        (self.folder / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.0",
            "hostname": name,
            "root": {"path": str(root), "readonly": read_only},
            "process": {
                "terminal": False,
                "user": {"uid": user[0], "gid": user[1], "additionalGids": list(groups)},
                "args": list(args),
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                        *(f"{key}={value}" for key, value in (env or {}).items())],
                "cwd": "/",
                "noNewPrivileges": no_new_privileges,
                "capabilities": {kind: [f"CAP_{name}" for name in capabilities]
                                 for kind in ["bounding", "effective", "permitted"]},
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": files, "soft": files}],
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                *({"destination": str(to), "type": "bind", "source": str(source), "options": ["rbind", *options]}
                  for source, to, options in mounts),
            ],
            "linux": {"namespaces": [*({"type": kind} for kind in ["pid", "mount", "ipc", "uts"]), *networks]},
        }))
        self._monitor = None

    def start(self):
        log = open(self.folder / "log", "ab")
        # A test that ends must not wait for it.
        self._monitor = subprocess.Popen([*self._runtime, "run", "--bundle", self.folder, self.name], stdin=subprocess.DEVNULL,
                                         stdout=log, stderr=log)
        return self

    def run_to_its_end(self):
        """Returns the status and the output."""
        self.start()
        try:
            return self._monitor.wait(PATIENCE_S), self.log()
        finally:
            (self.folder / "log").unlink()

    def is_running(self):
        return self._monitor.poll() is None

    def exec(self, args):
        """Runs a command in the container, with the container's user and rights. Returns its status and its output."""
        done = subprocess.run([*self._runtime, "exec", self.name, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S)
        return done.returncode, done.stdout

    def succeeds(self, args):
        status, said = self.exec(args)
        check(status == 0, f"{self.name}: {' '.join(args)}: status {status}\n{said}\n{self.log()}")
        return said

    def stop(self, grace_s, signal_name="TERM"):
        """As `docker stop`. Returns the status; the test fails if the container has to be killed."""
        run(*self._runtime, "kill", self.name, signal_name)
        try:
            return self._monitor.wait(grace_s)
        except subprocess.TimeoutExpired:
            check(False, f"{self.name} has not stopped within {grace_s} s\n{self.log()}")

    def log(self):
        return (self.folder / "log").read_text()


def make_mount_points(root, mounts):
    """Makes them before the container starts: two that start at once would both make those of a root that they share."""
    targets = [pathlib.PurePath(to) for _, to, _ in mounts]
    for source, to, _ in [("/proc", "/proc", []), ("/proc", "/dev", []), *mounts]:
        if any(target in pathlib.PurePath(to).parents for target in targets):
            continue  # it is in another mount
        place = pathlib.Path(root) / str(to).lstrip("/")
        if pathlib.Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()


def php_root(folder):
    """A root folder with this machine's PHP, laid out as the official image of php-fpm. Returns the folder and its mounts."""
    root = folder / "php-root"
    if not root.exists():
        for name in ["dev", "proc", "run", "srv", "tmp", "usr", "etc/php", "etc/alternatives", "etc/ssl", "var/log"]:
            (root / name).mkdir(parents=True)
        for name in ["group", "ld.so.cache", "nsswitch.conf", "passwd"]:
            shutil.copy(f"/etc/{name}", root / "etc")
        (root / "tmp").chmod(0o1777)
        for name in ["bin", "lib", "lib64", "sbin"]:
            (root / name).symlink_to(f"usr/{name}")
        (folder / "php-etc/php-fpm.d").mkdir(parents=True)
        # What php-fpm.conf and docker.conf of that image say.
        (folder / "php-etc/php-fpm.conf").write_text("[global]\nerror_log = /proc/self/fd/2\ndaemonize = no\n"
                                                     "include=/usr/local/etc/php-fpm.d/*.conf\n")
    here = [(name, name, ["ro"]) for name in ["/usr", "/etc/php", "/etc/alternatives", "/etc/ssl"]]
    return root, [*here, (folder / "php-etc", "/usr/local/etc", [])]


class Talk:
    """`longwire connect`, left running: the frames that it has received."""

    def __init__(self, binary, url, folder, headers=()):
        self._output = tempfile.TemporaryFile(dir=folder)
        options = [word for header in headers for word in ["--header", header]]
        self._client = subprocess.Popen([binary, "connect", "--quiet", *options, url], stdin=subprocess.PIPE, stdout=self._output,
                                        stderr=self._output)

    def heard(self):
        self._output.seek(0)
        return self._output.read().decode()

    def wait_for(self, text):
        wait_until(f"a client hears {text!r}, it has heard {self.heard()!r}", lambda: text in self.heard())

    def say(self, text):
        self._client.stdin.write(f"{text}\n".encode())
        self._client.stdin.flush()

    def close(self):
        self._client.stdin.close()
        self._client.wait(PATIENCE_S)
