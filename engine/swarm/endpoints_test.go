package swarm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// TestEndpoints speaks to a daemon by TLS and by ssh, as its builds' daemon and as another node.
func TestEndpoints(t *testing.T) {
	d := docker.Need(t)
	certs, others := t.TempDir(), t.TempDir()
	certificates(t, certs)
	certificates(t, others)
	addr := freeAddress(t)
	check(t, d.Restart(t.Context(), "-H", "tcp://"+addr, "--tlsverify", "--tlscacert", certs+"/ca.pem", "--tlscert",
		certs+"/cert.pem", "--tlskey", certs+"/key.pem"))
	t.Cleanup(func() { check(t, d.Restart(context.Background())) })
	t.Run("TLS", func(t *testing.T) {
		reaches(t, d, swarm.Config{Endpoint: "tcp://" + addr, CertDir: certs})
		reaches(t, d, swarm.Config{Nodes: []string{"tcp://" + addr}, CertDir: certs})
	})
	t.Run("TLS with certificates of others", func(t *testing.T) {
		isUnchecked(t, d, swarm.Config{Nodes: []string{"tcp://" + addr}, CertDir: others}, "certificate")
	})
	t.Run("no certificates", func(t *testing.T) {
		isUnchecked(t, d, swarm.Config{Nodes: []string{"tcp://" + addr}}, "HTTP request to an HTTPS server")
	})
	endpoint, config := serveSSH(t, d.Host)
	t.Run("ssh", func(t *testing.T) {
		reaches(t, d, swarm.Config{Endpoint: endpoint})
		reaches(t, d, swarm.Config{Nodes: []string{endpoint}})
	})
	t.Run("ssh to an unknown host", func(t *testing.T) {
		check(t, os.WriteFile(filepath.Join(filepath.Dir(config), "known"), nil, 0o600))
		isUnchecked(t, d, swarm.Config{Nodes: []string{endpoint}}, "Host key verification failed")
	})
}

// TestEndpointsWithoutDocker asks a stand-in for a daemon how it is, by ssh and by TLS.
func TestEndpointsWithoutDocker(t *testing.T) {
	t.Run("ssh", func(t *testing.T) {
		if _, err := os.Stat("/usr/sbin/sshd"); err != nil || os.Geteuid() != 0 {
			t.Skip("needs root and Debian's openssh-server: ", err)
		}
		endpoint, config := serveSSH(t, with("", 0).serve(t))
		wantProblem(t, endpoint, "", "")
		check(t, os.WriteFile(filepath.Join(filepath.Dir(config), "known"), nil, 0o600))
		wantProblem(t, endpoint, "unreachable", "Host key verification failed")
	})
	t.Run("TLS", func(t *testing.T) {
		certs, others := t.TempDir(), t.TempDir()
		certificates(t, certs)
		certificates(t, others)
		pair, err := tls.LoadX509KeyPair(certs+"/cert.pem", certs+"/key.pem")
		check(t, err)
		ca, err := os.ReadFile(certs + "/ca.pem")
		check(t, err)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		server := httptest.NewUnstartedServer(with("", 0))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
		server.Config.ErrorLog = log.New(t.Output(), "", 0)
		server.StartTLS()
		t.Cleanup(server.Close)
		for dir, fit := range map[string]bool{certs: true, others: false, "": false} {
			endpoint := "tcp://" + server.Listener.Addr().String()
			s, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: endpoint, CertDir: dir})
			check(t, err)
			if err := s.Health(t.Context()); (err == nil) != fit {
				t.Errorf("with the certificates of %q: %v, want it fit: %v", dir, err, fit)
			}
			check(t, s.Close())
		}
	})
	if _, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: "ssh://-oProxyCommand=x"}); err == nil {
		t.Error("an option in place of a host was taken")
	}
}

// reaches uses a build's socket, with its streams, and tears down; nothing may be left, and no node unverified.
func reaches(t *testing.T, d *swarmtest.Daemon, cfg swarm.Config) {
	t.Helper()
	dir := t.TempDir()
	cfg.SocketDir, cfg.LedgerDir = dir+"/run", dir+"/ledger"
	j := openHost(t, d, cfg).attach("cc-ci-test-endpoint", nil)
	j.do("run", "-d", "--name", "far", "-v", "farvol:/data", swarmtest.Image)
	wantInput(t, j, "there and back", "there and back", "exec", "-i", "far", "cat")
	kinds := map[string]bool{}
	for _, item := range j.teardown() {
		kinds[item.Kind] = true
	}
	if !kinds["container"] || !kinds["volume"] {
		t.Errorf("removed %v", kinds)
	}
}

// isUnchecked wants a node reported as one that could not be looked at, with the reason.
func isUnchecked(t *testing.T, d *swarmtest.Daemon, cfg swarm.Config, reason string) {
	t.Helper()
	dir := t.TempDir()
	cfg.SocketDir, cfg.LedgerDir = dir+"/run", dir+"/ledger"
	left, err := openHost(t, d, cfg).swarm.Remaining(t.Context(), "cc-ci-test-nobody")
	if err != nil || !slices.ContainsFunc(left, func(i leftover.Item) bool {
		return i.Kind == swarm.KindNode && strings.Contains(i.Detail, "not checked") && strings.Contains(i.Detail, reason)
	}) {
		t.Errorf("left %v, %v, want a node that was not checked: %s", left, err, reason)
	}
}

// certificates writes ca.pem, cert.pem and key.pem, which are good for both ends of a connection to 127.0.0.1.
func certificates(t *testing.T, dir string) {
	t.Helper()
	write := func(name, kind string, der []byte) {
		check(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	ca, err := x509.CreateCertificate(rand.Reader, authority, authority, caKey.Public(), caKey)
	check(t, err)
	write("ca.pem", "CERTIFICATE", ca)
	cert, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), caKey)
	check(t, err)
	write("cert.pem", "CERTIFICATE", cert)
	der, err := x509.MarshalECPrivateKey(key)
	check(t, err)
	write("key.pem", "EC PRIVATE KEY", der)
}

// freeAddress is one on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, l.Close())
	return l.Addr().String()
}

// serveSSH answers on loopback with Debian's sshd, one process a connection, with keys of the test's own. The commands
// on the other end speak to the daemon. The client's settings come from the returned file.
func serveSSH(t *testing.T, docker string) (endpoint, config string) {
	t.Helper()
	check(t, swarmtest.Install(t.Context(), "sshd", "openssh-server"))
	dir := t.TempDir()
	for _, name := range []string{"host", "client"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	key, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	check(t, err)
	client, err := exec.LookPath("ssh")
	check(t, err)
	check(t, os.MkdirAll("/run/sshd", 0o755)) // sshd wants it
	for name, text := range map[string]string{
		"known": fmt.Sprintf("[127.0.0.1]:%d %s", port, key),
		"config": fmt.Sprintf("IdentityFile %[1]s/client\nIdentitiesOnly yes\nUserKnownHostsFile %[1]s/known\nGlobalKnownHostsFile none\n"+
			"StrictHostKeyChecking yes\n", dir),
		"sshd_config": fmt.Sprintf("HostKey %[1]s/host\nAuthorizedKeysFile %[1]s/client.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"+
			"PasswordAuthentication no\nSetEnv DOCKER_HOST=%[2]s PATH=%[3]s\n", dir, docker, os.Getenv("PATH")),
		"ssh": fmt.Sprintf("#!/bin/sh\nexec %s -F %s/config \"$@\"\n", client, dir),
	} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			sessions.Go(func() { session(t, conn.(*net.TCPConn), filepath.Join(dir, "sshd_config")) })
		}
	})
	t.Cleanup(func() {
		check(t, l.Close())
		sessions.Wait()
	})
	return fmt.Sprintf("ssh://root@127.0.0.1:%d", port), filepath.Join(dir, "config")
}

// session serves one connection with sshd.
func session(t *testing.T, conn *net.TCPConn, config string) {
	file, err := conn.File()
	if err != nil {
		t.Error(err)
		return
	}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	cmd := exec.Command(sshd, "-i", "-e", "-f", config)
	cmd.Stdin, cmd.Stdout = file, file
	cmd.Stderr = t.Output()
	_ = cmd.Run() // a client that goes away is an error to it
	for _, c := range []interface{ Close() error }{file, conn} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
