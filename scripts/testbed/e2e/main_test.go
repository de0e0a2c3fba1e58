// Package e2e runs cc-ci-runner against a real Gitea and a real Drone server and looks at what people see: statuses,
// logs, and what is left on the host. Its tests run side by side on one pair of servers; each has a user, a repository
// and a runner of its own, tied together by a node label.
//
// CC_CI_E2E_RUNNER names another runner program to be tried, for comparison.
package e2e

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// What all tests share; TestMain sets it once.
var (
	running context.Context // ends when the tests are interrupted
	bed     *testbed.Bed
	program string
	setups  = make(chan struct{}, 4) // a place for each test that is being prepared
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		if err := child(os.Args[2:]); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	// The tests wait most of the time, so many more than there are processors may run at once.
	if err := flag.Set("test.parallel", "64"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	running = ctx
	bed, err = testbed.Start(ctx, testbed.Options{Log: os.Stderr, Dir: os.Getenv("CC_CI_E2E_DIR")})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, bed.Stop(context.Background())) }()
	if program = os.Getenv("CC_CI_E2E_RUNNER"); program == "" {
		if program, err = bed.BuildProduct(ctx, "cc-ci-runner"); err != nil {
			return 1, err
		}
	}
	return m.Run(), nil
}

// full says whether repeated tests run at their full count.
func full() bool { return os.Getenv("CC_CI_TEST_FULL") == "1" }

// child is what this test binary does when a pipeline's step starts it: `child serve FILE` answers on a loopback port
// that it writes to FILE, until it is killed; `child ask FILE` asks it and prints the answer.
func child(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: child serve|ask FILE")
	}
	if args[0] == "serve" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		if err := os.WriteFile(args[1]+".new", []byte(listener.Addr().String()), 0o600); err != nil {
			return err
		}
		if err := os.Rename(args[1]+".new", args[1]); err != nil {
			return err
		}
		for {
			connection, err := listener.Accept()
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(connection, "the server answers"); err != nil {
				return err
			}
			if err := connection.Close(); err != nil {
				return err
			}
		}
	}
	address, err := os.ReadFile(args[1])
	for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		address, err = os.ReadFile(args[1])
	}
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", string(address))
	if err != nil {
		return err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	fmt.Print(answer)
	return errors.Join(err, connection.Close())
}
