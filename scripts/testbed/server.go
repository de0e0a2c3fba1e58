package testbed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Server is one program that this package started and watches over: it runs in a process group of its own and never
// outlives the process that started it. Its methods may be called at the same time; Start and Stop wait for each
// other.
type Server struct {
	// Who makes a Server sets these, and nobody later.
	name    string
	program string
	args    []string
	env     []string
	dir     string
	logPath string
	health  string // the URL that answers 200 once the program is ready

	mu      sync.Mutex
	process *process // nil while stopped
}

// process is one run of a Server's program. pid is set before anybody else sees it.
type process struct {
	pid  int
	done chan struct{} // closed when the program has ended and been waited for
	err  error         // how it ended; read it after done
}

// LogPath names the file that holds the program's output over all its runs, oldest first.
func (s *Server) LogPath() string { return s.logPath }

// PID is the process id, or 0 while stopped.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.pid
}

// Start runs the program and returns once it answers at its health address, which may take two minutes at most. An
// error holds the end of its log. ctx bounds the wait only: the program lives on after its end.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return fmt.Errorf("start %s: it runs already", s.name)
	}
	process, err := s.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.process = process
	if err := s.ready(ctx, process); err != nil {
		// Killed, not asked: it never worked.
		return errors.Join(fmt.Errorf("start %s: %w\n%s", s.name, err, s.lastLog()), s.stop(nil))
	}
	return nil
}

// Stop asks the program to end, waits ten seconds, or less if ctx ends, and kills it with everything that is still in
// its process group. How it ended is not looked at. It is no error if it does not run.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s.stop(ctx.Done())
}

// Kill ends the program at once with SIGKILL, as a crash would, and nothing of what it started: what it leaves on the
// host is what a test looks at.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.process
	if p == nil {
		return nil
	}
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	<-p.done
	s.process = nil
	return nil
}

// Restart stops the program and starts it again, at the same address and with the same data.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Exited waits until the program ends by itself and returns its exit code, -1 if a signal ended it. After it the
// Server counts as stopped.
func (s *Server) Exited(ctx context.Context) (int, error) {
	s.mu.Lock()
	process := s.process
	s.mu.Unlock()
	if process == nil {
		return 0, fmt.Errorf("wait for %s: it is stopped", s.name)
	}
	select {
	case <-process.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for %s to end: %w", s.name, context.Cause(ctx))
	}
	s.mu.Lock()
	s.process = nil
	s.mu.Unlock()
	var exit *exec.ExitError
	if errors.As(process.err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, process.err
}

// Signal sends a signal to the program itself, not to its group: what it started is its own to tell.
func (s *Server) Signal(signal syscall.Signal) error {
	pid := s.PID()
	if pid == 0 {
		return fmt.Errorf("signal %s: it is stopped", s.name)
	}
	return syscall.Kill(pid, signal)
}

// launch starts the program and a goroutine that waits for it. The goroutine keeps its thread: the kernel sends the
// parent-death signal when the thread that started the child ends (PR_SET_PDEATHSIG of prctl(2)), and Go ends threads
// when it likes.
func (s *Server) launch() (*process, error) {
	log, err := os.OpenFile(s.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.program, s.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		// The child has its own copy of the descriptor; a failing close of ours loses nothing.
		_ = log.Close()
		close(p.done)
	}()
	return p, <-started
}

// ready waits until the health URL answers 200 or the program has ended. It cannot tell whose answer it is: that the
// port is nobody else's is claim's part.
func (s *Server) ready(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return until(ctx, 50*time.Millisecond, s.name+" to answer", func() (bool, error) {
		select {
		case <-p.done:
			return false, fmt.Errorf("it ended: %v", p.err)
		default:
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.health, nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil // not listening yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
}

// stop asks the program to end and gives it until patience is over, then kills whatever is left of its process group.
// Without patience it kills at once. The caller holds mu.
func (s *Server) stop(patience <-chan struct{}) error {
	p := s.process
	if p == nil {
		return nil
	}
	s.process = nil
	if patience != nil {
		if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop %s: %w", s.name, err)
		}
		select {
		case <-p.done:
		case <-patience:
		}
	}
	if err := syscall.Kill(-p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	<-p.done
	return nil
}

// lastLog returns the end of the program's log, for an error message.
func (s *Server) lastLog() string {
	data, err := os.ReadFile(s.logPath)
	if err != nil {
		return ""
	}
	return tail(string(data), 20)
}

// freePort finds a port of the loopback address that nobody listens on. It stays below the range from which the kernel
// takes ports for outgoing connections (net.ipv4.ip_local_port_range begins at 32768), so that it is still free when a
// server is restarted on it. A server that chose its own could not be told its address beforehand, and Gitea and Drone
// must know theirs.
func freePort() (int, error) {
	for range 100 {
		port := 15000 + rand.IntN(15000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		claimed, err := claim(port)
		if err := errors.Join(err, listener.Close()); err != nil || claimed {
			return port, err
		}
	}
	return 0, errors.New("find a free port on 127.0.0.1: none in a hundred tries")
}

// claim keeps other testbeds from the port for as long as this process lives: a server's predecessor on it would be
// taken for the server. The name is an abstract socket's (unix(7)), which the kernel gives to one process and leaves
// no file of. The socket is never closed, on purpose.
func claim(port int) (bool, error) {
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	err = syscall.Bind(socket, &syscall.SockaddrUnix{Name: fmt.Sprintf("@cc-ci-testbed-%d", port)})
	if errors.Is(err, syscall.EADDRINUSE) {
		return false, syscall.Close(socket)
	}
	return err == nil, err
}

// baseEnv is the environment of every program that this package starts: nothing of the caller's settings, such as
// proxies or the variables of another runner, and a home of its own.
func baseEnv(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8"}
}
