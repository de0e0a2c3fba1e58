package safehttp

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func serve(t *testing.T, handler http.HandlerFunc) (*url.URL, *http.Client) {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u, New(u, "token canary", time.Minute)
}

// get reads an answer whole.
func get(c *http.Client, address string) ([]byte, error) {
	resp, err := c.Get(address)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	return body, errors.Join(err, resp.Body.Close())
}

func TestStatusErrors(t *testing.T) {
	u, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		code := map[string]int{"/303": 303, "/401": 401, "/404": 404, "/408": 408, "/429": 429, "/500": 500}[r.URL.Path]
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"message":"no\nway `+strings.Repeat("x", 500)+`"}`)
	})
	for path, definite := range map[string]bool{"/303": true, "/401": false, "/404": true, "/408": false, "/429": false, "/500": false} {
		_, err := get(c, u.String()+path+"?q=1")
		if Status(err) == 0 || Definite(err) != definite {
			t.Errorf("%s: %v, definite %v", path, err, Definite(err))
		}
		if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "canary") || len(err.Error()) > 400 {
			t.Errorf("%s: error %q", path, err)
		}
	}
	if Definite(errors.New("x")) || Status(nil) != 0 {
		t.Error("an error without an answer has a status")
	}
}

// TestForeign tells a proxy's 404 from the server's: in JSON, or empty as the answer to a question of yes or no.
func TestForeign(t *testing.T) {
	u, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/json":
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"","url":"x"}`) // the test sees it
		case "/empty":
			w.WriteHeader(http.StatusNotFound)
		default:
			http.NotFound(w, r)
		}
	})
	for path, status := range map[string]int{"/json": 404, "/empty": 404, "/other": 0} {
		_, err := get(c, u.String()+path)
		if Status(err) != status || Definite(err) != (status != 0) || Foreign(err) != (status == 0) {
			t.Errorf("%s: %v, status %d, definite %v, foreign %v", path, err, Status(err), Definite(err), Foreign(err))
		}
	}
	if Foreign(errors.New("x")) || Foreign(nil) {
		t.Error("an error without an answer is foreign")
	}
}

// TestUnsent tells a server that was not there from one that hung up: only the first knows nothing of the call.
func TestUnsent(t *testing.T) {
	u, c := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := get(c, u.String()); err == nil || Unsent(err) {
		t.Errorf("hung up: %v, unsent %v", err, Unsent(err))
	}
	nobody := &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	if _, err := get(New(nobody, "token canary", time.Second), nobody.String()); !Unsent(err) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestOneOriginOnly(t *testing.T) {
	other, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the other server was asked") })
	_, c := serve(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := get(c, other.String()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("another origin: %v", err)
	}
}

func TestLongAnswer(t *testing.T) {
	u, c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for range MaxAnswer>>20 + 1 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	if _, err := get(c, u.String()); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("long answer: %v", err)
	}
}

func TestHeaders(t *testing.T) {
	u, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+" "+r.Header.Get("User-Agent"))
	})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	if body, err := get(c, u.String()); err != nil || string(body) != "token canary cc-ci-bridge" {
		t.Errorf("%s (%v)", body, err)
	}
}
