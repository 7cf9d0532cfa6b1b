"""What the replays of both compose files share: volumes, mounts and the php container."""

import re

import yaml

import runtime
from runtime import Container, run

DOCKER = runtime.REPOSITORY / "docker"


def load(name, folder):
    """A compose file, and the folders of its volumes."""
    compose = yaml.safe_load((DOCKER / name).read_text())
    return compose, {name: volume(name, what or {}, folder) for name, what in compose["volumes"].items()}


def written(text):
    """A text of a compose file as the container gets it: with the defaults of its variables, and each $$ as one dollar."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")


def volume(name, what, folder):
    """What Docker's driver `local` does with a volume."""
    place = folder / f"volume-{name}"
    place.mkdir()
    options = what.get("driver_opts")
    if options:
        run("mount", "-t", options["type"], "-o", options["o"], options["device"], place)
    return place


def mounts(service, volumes):
    for text in service["volumes"]:
        source, to, *options = text.split(":")
        yield (DOCKER / source).resolve() if source.startswith(".") else volumes[source], to, options


def stand_in(name, service, volumes, folder, command, **options):
    """A container with programs of this machine, and the volumes of a service."""
    root, files = runtime.php_root(folder)
    asked = list(mounts(service, volumes)) if "volumes" in service else []
    # This folder is mounted on /usr/local/etc.
    inside = [(source, to.removeprefix("/usr/local/etc"), how) for source, to, how in asked if to.startswith("/usr/local/etc/")]
    runtime.make_mount_points(folder / "php-etc", inside)
    return Container(name, root, command, folder, mounts=files + asked, capabilities=runtime.DOCKER_CAPABILITIES, **options)


def php_container(service, volumes, folder, **options):
    command = [*runtime.PHP_FPM, "--fpm-config", "/usr/local/etc/php-fpm.conf"]
    return stand_in("php", service, volumes, folder, command, **options)
