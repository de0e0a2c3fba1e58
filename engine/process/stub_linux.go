package process

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The hidden first arguments of the runner's binary: the stub becomes a command, the launcher starts a stub and stays its
// parent, and pause waits for the end of its input, to be killed or counted by whoever tries something out.
const (
	stubRole   = "__cc-ci-stub"
	launchRole = "__cc-ci-launch"
	pauseRole  = "__cc-ci-pause"
)

// What a stub inherits: its order, where to say what went wrong, and, for a launcher, a pipe whose other end the
// runner holds for as long as it lives.
const (
	orderFD   = 3
	statusFD  = 4
	controlFD = 5
)

// orderName is what the unnamed file with the order is called in /proc.
const orderName = "order"

// order is what a stub has to do. It travels in an unnamed file: a command's environment holds the build's secrets,
// and it must not steer the stub, which may be root (Go's own runtime reads GODEBUG, for one).
type order struct {
	Args []string
	Dir  string
	Env  []string

	// Join are the tasks files of version 1 cgroups. A thread that moves itself through one is there at once, where a
	// whole process waits for 10 ms; only that thread is left when the command starts.
	Join []string

	// Mounts and User are nil where the stub stays in the runner's. NoNewPrivs keeps setuid programs such as sudo from
	// giving back what the user lacks; it is set for any user but the runner's own.
	Mounts     *mountPlan
	User       *identity
	NoNewPrivs bool

	// UserNamespace, Reaper and Keep are for the launcher: what it makes for the command, whether it stays as the
	// parent of all orphans, and whether they live on when the runner is gone.
	UserNamespace bool
	Reaper        bool
	Keep          bool
}

// status is what a stub or launcher writes to statusFD: an error, or how the launcher's command ended. A stub that has
// become the command writes nothing: the descriptor is closed by the execve(2), and so the runner reads an end.
type status struct {
	Error      string
	Ended      bool
	Wait       syscall.WaitStatus
	CPUSeconds float64
}

// Main plays the part of a stub if args (os.Args) name one; otherwise it returns false at once. A program that opens
// a [Host] calls it before anything else, and ends with the exit code if handled. A stub that succeeds does not return:
// it has become the command. 125 is what env(1) and timeout(1) end with too when it is they that fail.
func Main(args []string) (handled bool, exit int) {
	if len(args) < 2 {
		return false, 0
	}
	var err error
	switch args[1] {
	case stubRole:
		err = runStub()
	case launchRole:
		err = runLauncher()
	case pauseRole:
		_, err = io.Copy(io.Discard, os.Stdin)
	default:
		return false, 0
	}
	if err == nil {
		return true, 0
	}
	if errors.Is(err, errByHand) {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(args[0]), err) // a person's terminal, or nobody's
		return true, 125
	}
	text := err.Error()
	if len(text) > maxError {
		text = text[:maxError] + "..."
	}
	reply(status{Error: text})
	return true, 125
}

// maxError keeps a status, which JSON makes up to six times as long, from filling the pipe (64 KiB, pipe(7)): the runner reads
// it when the stub has ended. Errors quote the PATH of a step, which may be of any length.
const maxError = 4 << 10

// errByHand is the error of a stub or launcher that has no order.
var errByHand = errors.New("this is a part of the runner that only the runner itself can start: see --help for the commands")

// reply writes to the status pipe. If that fails the runner is gone and nobody is left to be told.
func reply(s status) {
	if b, err := json.Marshal(s); err == nil {
		_, _ = unix.Write(statusFD, append(b, '\n'))
	}
}

// readOrder reads what to do. Before that it makes sure that the command inherits none of the files that come with it.
func readOrder() (order, error) {
	var o order
	// Where nothing was inherited, the descriptor may be one that Go's runtime has opened for itself.
	if name, err := os.Readlink("/proc/self/fd/" + itoa(orderFD)); err != nil || !strings.HasPrefix(name, "/memfd:"+orderName) {
		return o, errByHand
	}
	if err := closeOnExec(); err != nil {
		return o, err
	}
	f := os.NewFile(orderFD, orderName)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return o, fmt.Errorf("read order: %w", err)
	}
	if err := gob.NewDecoder(f).Decode(&o); err != nil {
		return o, fmt.Errorf("read order: %w", err)
	}
	return o, nil
}

// closeOnExec keeps everything but the standard files from the command: our own, and what the runner in its turn was
// started with.
func closeOnExec() error {
	err := unix.CloseRange(orderFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	entries, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= orderFD {
			unix.CloseOnExec(fd)
		}
	}
	return err
}

// runStub turns this process into the command. It only returns if that failed.
//
// The order of what it does is fixed: cgroups and mounts need the rights that the new user lacks, and Dir and the program
// are looked up last, as the step will see them and with its rights.
func runStub() error {
	o, err := readOrder()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // what follows is the thread's: namespace, capabilities, and at last execve
	for _, tasks := range o.Join {
		if err := os.WriteFile(tasks, []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	if err := o.Mounts.apply(); err != nil {
		return err
	}
	unix.Umask(0o022) // whatever the runner was started with
	if o.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	if err := o.User.assume(); err != nil {
		return err
	}
	if o.User != nil {
		if err := ownKeyring(); err != nil {
			return err
		}
	}
	if o.UserNamespace {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	if err := os.Chdir(o.Dir); err != nil {
		return err
	}
	path, err := lookPath(o.Args[0], o.Env)
	if err != nil {
		return err
	}
	if err := unix.Exec(path, o.Args, o.Env); err != nil {
		return &os.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}

// ownKeyring leaves the session keyring that the runner was started with (keyrings(7)): whoever inherits it may read the keys
// in it, whatever user it is, and steps of different builds could leave each other keys there. The new one is the
// command's, and gone with it.
func ownKeyring() error {
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) // no name: nobody can join it
	// A kernel without keys, or a container's filter of system calls, which holds for the step too.
	if err == nil || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return fmt.Errorf("make session keyring: %w", err)
}

// dropCapabilities gives up what the user namespace granted for the mounts.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// lookPath finds a program as a shell would, in the command's PATH and not in the runner's, which exec.LookPath would ask.
// Without a PATH it is the list that Debian's login gives to root.
func lookPath(program string, env []string) (string, error) {
	if strings.ContainsRune(program, '/') {
		return program, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, assignment := range env {
		if v, ok := strings.CutPrefix(assignment, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, program)
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() && unix.Access(candidate, unix.X_OK) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s: not found in the step's PATH (%s)", program, path)
}

// runLauncher starts the stub as its child where the runner itself cannot: in a user namespace of its own, whose
// maps a parent without a readable /proc entry may not write, or below a subreaper. It holds no secret but what the
// command gets anyway.
func runLauncher() error {
	o, err := readOrder()
	if err != nil {
		return err
	}
	if o.Reaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become subreaper: %w", err)
		}
	}
	stop := ignoreSignals()
	defer stop()
	cmd := exec.Command("/proc/self/exe", stubRole)
	cmd.Args[0] = os.Args[0]
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(orderFD, "order"), os.NewFile(statusFD, "status")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if o.UserNamespace {
		intoUserNamespace(cmd.SysProcAttr)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in a user namespace: %w", err)
	}
	if err := releaseOutput(); err != nil {
		return err
	}
	return reap(cmd.Process.Pid, o)
}

// intoUserNamespace keeps the ids as they are and grants what mounting needs. One id is all that a process without rights
// may map (user_namespaces(7)); every other user's files appear as nobody's. The capability is an ambient one because
// only these survive the execve(2) of the stub; dropCapabilities takes it away again.
func intoUserNamespace(attr *syscall.SysProcAttr) {
	uid, gid := os.Getuid(), os.Getgid()
	attr.Cloneflags = unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
}

// releaseOutput lets go of the step's output, which is at an end when the command and its children are.
func releaseOutput() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer discard(null)
	return errors.Join(unix.Dup3(int(null.Fd()), 1, 0), unix.Dup3(int(null.Fd()), 2, 0))
}
