#!/usr/bin/python3
"""Boots the guest images for real and checks them: the agent, the page, writes,
the upgrade and the new kernel. The images themselves are not changed.

    guest/check.py mini|demo|upgrade [FOLDER]

Only the standard library; QEMU with TCG unless FLIPSIDE_ACCEL says otherwise.
"""
import base64, json, os, re, shutil, socket, subprocess, sys, tempfile, time, urllib.request

# On a busy host: PATIENCE=10 multiplies every time limit.
PATIENCE = float(os.environ.get("PATIENCE", "1"))
HERE = os.path.dirname(os.path.abspath(__file__))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Guest:
    def __init__(self, system, data, memory, cpus=1, ports=(80,)):
        self.dir = tempfile.mkdtemp(prefix="guest-check-")
        self.system = self.copy(system)
        self.data = self.copy(data) if data else None
        self.memory, self.cpus = memory, cpus
        self.ports = {p: free_port() for p in ports}
        self.serial = os.path.join(self.dir, "serial.log")
        self.boots = 0

    def copy(self, image):
        to = os.path.join(self.dir, os.path.basename(image))
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, to], check=True)
        return to

    def start(self, data=True, extra=None):
        self.boots += 1
        agent = os.path.join(self.dir, "qga.sock")
        accel = os.environ.get("FLIPSIDE_ACCEL", "tcg")
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{h}-:{g}" for g, h in self.ports.items())
        args = ["qemu-system-x86_64", "-nodefaults", "-machine", "q35",
                "-accel", "tcg,thread=multi" if accel == "tcg" else accel,
                "-cpu", "Nehalem" if accel == "tcg" else "host",
                "-smp", str(self.cpus), "-m", self.memory, "-display", "none", "-vga", "std",
                "-serial", f"file:{self.serial}",
                "-device", "pcie-root-port,id=p1,chassis=1", "-device", "pcie-root-port,id=p2,chassis=2",
                "-device", "pcie-root-port,id=p3,chassis=3", "-device", "pcie-root-port,id=p4,chassis=4",
                "-device", "virtio-scsi-pci,id=scsi,bus=p1",
                "-drive", f"if=none,id=system0,format=raw,file={self.system},cache=writeback",
                "-device", "scsi-hd,bus=scsi.0,drive=system0,serial=system0,device_id=system0,bootindex=0",
                "-device", "virtio-serial-pci,bus=p2", "-chardev", f"socket,id=qga,path={agent},server=on,wait=off",
                "-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0",
                "-netdev", f"user,id=net0{forwards}", "-device", "virtio-net-pci,netdev=net0,bus=p3",
                "-netdev", "user,id=vtm,restrict=on,net=10.0.9.0/24", "-device", "virtio-net-pci,netdev=vtm,bus=p4,mac=52:54:00:00:09:09"]
        if self.data and data:
            args += ["-drive", f"if=none,id=data0,format=raw,file={self.data},cache=writeback",
                     "-device", "scsi-hd,bus=scsi.0,drive=data0,serial=data0,device_id=data0"]
        if extra:
            args += ["-drive", f"if=none,id=extra,format=raw,file={extra},readonly=on",
                     "-device", "scsi-hd,bus=scsi.0,drive=extra,serial=extra,device_id=extra"]
        self.began = time.time()
        self.qemu = subprocess.Popen(args)
        deadline = self.began + 400 * PATIENCE
        while time.time() < deadline:
            try:
                self.agent = socket.socket(socket.AF_UNIX)
                self.agent.connect(agent)
                break
            except OSError:
                time.sleep(0.05)
        self.buffer = b""
        self.sync(deadline)
        print(f"  agent answers after {time.time() - self.began:.1f} s ({self.cpu():.1f} s of processor time)", flush=True)

    def line(self, timeout):
        self.agent.settimeout(timeout)
        while b"\n" not in self.buffer:
            got = self.agent.recv(65536)
            if not got:
                raise EOFError("the agent's channel is closed")
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def sync(self, deadline):
        number = int(time.time() * 1000) % 10**9
        while time.time() < deadline:
            if self.qemu.poll() is not None:
                raise SystemExit("QEMU ended")
            number += 1
            self.agent.settimeout(1)
            try:
                self.agent.sendall(b"\xff" + json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": number}}).encode() + b"\n")
            except socket.timeout:
                continue
            until = time.time() + 0.5
            while time.time() < until:
                try:
                    line = self.line(0.5)
                except socket.timeout:
                    break
                if b"\xff" in line and str(number).encode() in line:
                    return
        raise SystemExit("no answer from the agent; the serial log ends:\n" + open(self.serial, errors="replace").read()[-3000:])

    def call(self, command, timeout=60, **arguments):
        timeout *= PATIENCE
        self.agent.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        reply = json.loads(self.line(timeout).replace(b"\xff", b""))
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["return"]

    def run(self, script, timeout=180, check=True):
        timeout *= PATIENCE
        pid = self.call("guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True})["pid"]
        deadline = time.time() + timeout
        while time.time() < deadline:
            status = self.call("guest-exec-status", pid=pid)
            if status["exited"]:
                text = base64.b64decode(status.get("out-data", "")).decode(errors="replace")
                errors = base64.b64decode(status.get("err-data", "")).decode(errors="replace")
                if check and status.get("exitcode") != 0:
                    raise SystemExit(f"{script!r} failed: {status.get('exitcode')}\n{text}\n{errors}")
                return text.strip() if check else (status.get("exitcode"), text, errors)
            time.sleep(0.1)
        raise SystemExit(f"{script!r} did not end in {timeout} s")

    def get(self, path, timeout=5):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[80]}{path}", timeout=timeout) as reply:
            return reply.read().decode()

    def until_page(self, path="/health", limit=400):
        deadline = time.time() + limit * PATIENCE
        while time.time() < deadline:
            try:
                text = self.get(path)
                print(f"  {path} answers after {time.time() - self.began:.1f} s ({self.cpu():.1f} s of processor time)", flush=True)
                return text
            except Exception:
                time.sleep(0.1)
        raise SystemExit(f"{path} does not answer; the serial log ends:\n" + open(self.serial, errors="replace").read()[-3000:])

    def latency(self, path, count=50):
        took = []
        for _ in range(count):
            began = time.time()
            self.get(path)
            took.append((time.time() - began) * 1000)
        took.sort()
        print(f"  GET {path}: median {took[count // 2]:.0f} ms, 95th percentile {took[int(count * .95)]:.0f} ms, worst {took[-1]:.0f} ms")

    def cpu(self):
        """Processor time QEMU has used: on a busy host it says more than the clock."""
        fields = open(f"/proc/{self.qemu.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        try:
            self.agent.sendall(b'{"execute":"guest-shutdown"}\n')
            self.qemu.wait(240 * PATIENCE)
        except (subprocess.TimeoutExpired, OSError):
            print("  it did not shut down; ended")
            self.qemu.kill()
            self.qemu.wait()

    def close(self):
        if self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def expect(what, ok):
    print(("  ok: " if ok else "  FAILED: ") + what, flush=True)
    if not ok:
        raise SystemExit(1)


def mini(folder):
    guest = Guest(f"{folder}/mini.raw", f"{folder}/mini-data.raw", "256M")
    try:
        print("mini: first boot")
        guest.start()
        guest.until_page()
        first = int(guest.get("/write?n=first"))
        guest.latency("/write?n=x")
        guest.latency("/")
        print(guest.run("free -m | head -2; df -h / /srv/data; ip -br a; ip r; systemctl --failed --no-legend; systemd-analyze time"))
        expect("the serial console has a login prompt", any("login:" in open(guest.serial, errors="replace").read() or time.sleep(1) for _ in range(30)))
        last = int(guest.get("/last"))
        guest.stop()
        print("mini: second boot")
        guest.start()
        guest.until_page()
        expect("every acknowledged write is there", int(guest.get("/last")) == last and len(guest.get("/list").split("\n")) == last - first + 2)
        guest.stop()
        print("mini: boot without its data disk")
        guest.start(data=False)
        time.sleep(12)
        expect("the writer is not running", guest.run("systemctl is-active mini-writer; true").strip() != "active")
        guest.stop()
    finally:
        guest.close()


def demo(folder):
    guest = Guest(f"{folder}/demo.raw", f"{folder}/demo-data.raw", "1G", ports=(80, 22, 5432))
    try:
        print("demo: first boot")
        guest.start()
        guest.until_page()
        page = guest.get("/")
        print("    " + page.strip().replace("\n", "\n    "))
        expect("the page says release 1.0", "release 1.0" in page)
        first = int(guest.get("/write?n=check"))
        expect("a write is counted", guest.get("/last").split() == [str(first), str(first)])
        guest.latency("/write?n=x")
        guest.latency("/")
        guest.latency("/health")
        expect("the serial console has a login prompt", any("login:" in open(guest.serial, errors="replace").read() or time.sleep(1) for _ in range(60)))
        if shutil.which("psql"):
            out = subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(guest.ports[5432]), "-U", "demo", "-At", "-c", "SELECT count(*) FROM visits"],
                                 capture_output=True, text=True, timeout=30)
            expect(f"psql from the host reads {out.stdout.strip()} visits {out.stderr.strip()}", out.stdout.strip().isdigit())
        with socket.create_connection(("127.0.0.1", guest.ports[22]), 20) as ssh:
            ssh.settimeout(20)
            expect("sshd greets", ssh.recv(20).startswith(b"SSH-2.0"))
        print(guest.run("free -m | head -2; df -h / /srv/data; ip r; systemctl --failed --no-legend; systemctl list-timers --no-legend; systemd-analyze time"))
        expect("no unit failed", guest.run("systemctl --failed --no-legend") == "")
        for action in ("stop postgresql@15-main", "start postgresql@15-main", "restart nginx demo-page"):
            began = time.time()
            guest.run(f"systemctl {action}")
            print(f"  systemctl {action}: {time.time() - began:.1f} s")
        guest.until_page()
        last = guest.get("/last")
        began = time.time()
        guest.stop()
        print(f"  shut down in {time.time() - began:.1f} s; second boot")
        guest.start()
        guest.until_page()
        expect("every visit is still there", guest.get("/last") == last)
    finally:
        guest.close()


def upgrade(folder):
    guest = Guest(f"{folder}/demo.raw", f"{folder}/demo-data.raw", "1G", cpus=int(os.environ.get("CPUS", "1")))
    held = ("postgresql@15-main", "nginx", "demo-page")
    try:
        print("upgrade: first boot, then the services are held and the data disk goes")
        guest.start(extra=f"{folder}/upgrade.tar")
        guest.until_page()
        old = guest.run("uname -r")
        visits = [int(guest.get("/write?n=before")) for _ in range(3)][-1]
        guest.run("tar -C /opt -xf /dev/disk/by-id/*extra && ls /opt/upgrade | wc -l", timeout=300)
        guest.run("systemctl stop demo-page nginx postgresql@15-main; umount /srv/data", timeout=300)
        for unit in held:
            guest.run(f"mkdir -p /etc/systemd/system/{unit}.service.d && printf '[Unit]\\nAssertPathExists=/etc/gate-open\\n' >/etc/systemd/system/{unit}.service.d/gate.conf")
        guest.run("systemctl disable demo-page nginx; systemctl daemon-reload; echo manual >/etc/postgresql/15/main/start.conf", timeout=300)
        guest.stop()
        guest.start(data=False)
        time.sleep(10)
        began, used = time.time(), guest.cpu()
        code, text, errors = guest.run("/opt/upgrade/install.sh >/var/log/upgrade.log 2>&1", timeout=2400, check=False)
        print(f"  install.sh took {time.time() - began:.0f} s ({guest.cpu() - used:.0f} s of processor time), status {code}", flush=True)
        log = guest.run("cat /var/log/upgrade.log")
        open("/tmp/guest-upgrade.log", "w").write(log)
        print("    " + "\n    ".join(log.split("\n")[-8:]))
        expect("install.sh succeeded", code == 0)
        expect("nothing held was started", guest.run("systemctl is-active postgresql@15-main nginx demo-page; true").split() == ["inactive"] * 3
               or guest.run("systemctl is-active postgresql@15-main nginx demo-page; true").count("active") == 0)
        expect("dpkg has nothing half done", guest.run("dpkg --audit") == "")
        guest.stop()
        print("upgrade: restart without the data disk")
        guest.start(data=False)
        new = guest.run("uname -r")
        expect(f"the kernel is new: {old} -> {new}", new != old)
        time.sleep(20)
        expect("the held services do not run", guest.run("pgrep -a 'nginx|postgres' ; true") == "")
        guest.run("touch /etc/gate-open; rm /etc/systemd/system/*/gate.conf; systemctl enable demo-page nginx; echo auto >/etc/postgresql/15/main/start.conf", timeout=300)
        guest.stop()
        print("upgrade: with the data disk again")
        guest.start()
        guest.until_page()
        page = guest.get("/")
        print("    " + page.strip().replace("\n", "\n    "))
        expect("the page says release 2.0 and the new kernel", "release 2.0" in page and new in page)
        expect("the visits are there, and more can be written", int(guest.get("/write?n=after")) > visits)
        expect("no unit failed", guest.run("systemctl --failed --no-legend") == "")
    finally:
        guest.close()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("mini", "demo", "upgrade"):
        raise SystemExit(__doc__)
    globals()[sys.argv[1]](os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else f"{HERE}/../target/guest"))
