"""A network for containers: a bridge, on which each one has an address, and a hosts file with their names."""

import subprocess

from runtime import run

BRIDGE = "longwire0"
PREFIX = "10.77.0."


class Network:
    def __init__(self, names, folder, fixed=None):
        """`fixed` has the last numbers of addresses that are given."""
        numbers = {name: 128 + at for at, name in enumerate(names)} | (fixed or {})
        self.addresses = {name: f"{PREFIX}{number}" for name, number in numbers.items()}
        self._holders = {}
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{PREFIX}1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self.addresses.items()))
        for number, name in enumerate(self.addresses):
            self._join(name, f"cable{number}")

    def _join(self, name, cable):
        # A namespace lives as long as a process in it. The end of the test ends it.
        holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE)
        # It has said something, so it is in its namespace.
        holder.stdout.readline()
        self._holders[name] = holder
        inside = ["nsenter", f"--net={self.path(name)}", "ip"]
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        run("ip", "link", "set", cable, "master", BRIDGE, "up")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")

    def path(self, name):
        return f"/proc/{self._holders[name].pid}/ns/net"
