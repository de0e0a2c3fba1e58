package gitea

import (
	"encoding/json"
	"strings"
	"testing"
)

const comment = `{"action":"created","is_pull":true,
"comment":{"id":5,"user":{"id":2,"login":"wim"},"original_author":"","body":"!testme","created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:05Z"},
"issue":{"number":9,"state":"open"},
"pull_request":{"number":9,"state":"open","head":{"sha":"abc","repo_id":-1,"repo":null},"base":{"repo_id":7,"repo":{"id":7}}},
"repository":{"id":7,"name":"app","full_name":"org/app","permissions":{"admin":false,"push":true,"pull":true}},
"sender":{"id":2,"login":"wim"}}`

func TestDecodeComment(t *testing.T) {
	e, err := Decode([]byte(comment))
	if err != nil {
		t.Fatal(err)
	}
	if e.Kind != Comment || e.Repo != (Repo{ID: 7, Owner: "org", Name: "app"}) || e.PR != 9 || !e.Open || !e.Push ||
		e.Head != "abc" || e.Base != 7 || e.Sender.ID != 2 || e.Note.ID != 5 || e.Note.Body != "!testme" || e.Note.Imported {
		t.Errorf("decoded %+v", e)
	}
}

// TestDecodeVariants leaves out or changes one thing at a time.
func TestDecodeVariants(t *testing.T) {
	cases := []struct {
		name, old, new string
		kind           Kind
	}{
		{"edited", `"action":"created"`, `"action":"edited"`, Other},
		{"deleted", `"action":"created"`, `"action":"deleted"`, Other},
		{"on an issue", `"is_pull":true`, `"is_pull":false`, Other},
		{"no author", `"user":{"id":2,"login":"wim"}`, `"user":null`, Other},
		{"no sender", `"sender":{"id":2,"login":"wim"}`, `"sender":null`, Other},
		{"ghost", `"sender":{"id":2,"login":"wim"}`, `"sender":{"id":-1,"login":"Ghost"}`, Other},
		{"other pull request", `"pull_request":{"number":9`, `"pull_request":{"number":10`, Other},
		{"no repository", `"repository":{`, `"x":{`, Other},
		{"odd name", `"full_name":"org/app"`, `"full_name":"org/app/x"`, Other},
		{"no number", `"issue":{"number":9`, `"issue":{"number":0`, Other},
		{"fork gone", `"head":{"sha":"abc","repo_id":-1,"repo":null}`, `"head":null`, Comment},
		{"conversion failed", `"pull_request":{`, `"x":{`, Comment},
		{"no permissions", `"permissions":{`, `"x":{`, Comment},
	}
	for _, c := range cases {
		if !strings.Contains(comment, c.old) {
			t.Fatalf("%s: %s is not in the sample", c.name, c.old)
		}
		e, err := Decode([]byte(strings.Replace(comment, c.old, c.new, 1)))
		if err != nil || e.Kind != c.kind {
			t.Errorf("%s: kind %v, want %v (%v)", c.name, e.Kind, c.kind, err)
		}
		if c.name == "no permissions" && e.Push {
			t.Error("a right was made up")
		}
	}
}

func TestDecodePullRequests(t *testing.T) {
	for action, kind := range map[string]Kind{"synchronized": Push, "closed": Closed, "opened": Other, "edited": Other, "reviewed": Other} {
		body := `{"action":"` + action + `","number":9,"pull_request":{"number":9,"state":"open","head":{"sha":"abc"},"base":{"repo_id":7}},
			"repository":{"id":7,"full_name":"org/app"},"sender":{"id":2,"login":"wim"}}`
		e, err := Decode([]byte(body))
		if err != nil || e.Kind != kind || e.PR != 9 || e.Head != "abc" || e.Base != 7 {
			t.Errorf("%s: %+v (%v), want kind %v", action, e, err, kind)
		}
	}
	for _, body := range []string{"", "[]", "{", "null", `"x"`, "{}", `{"comment":[]}`} {
		if e, err := Decode([]byte(body)); err == nil && e.Kind != Other {
			t.Errorf("%q became %+v", body, e)
		}
	}
}

// FuzzDecode checks that whatever decodes to a comment names everything that decisions rest on.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(comment))
	f.Add([]byte(`{"comment":{},"issue":null}`))
	f.Add([]byte(strings.Replace(comment, `"repo_id":7`, `"repo_id":null`, 1)))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := Decode(body)
		if err != nil || e.Kind == Other {
			return
		}
		if !json.Valid(body) || e.Repo.ID <= 0 || e.Repo.Owner == "" || e.Repo.Name == "" || e.Sender.ID <= 0 {
			t.Fatalf("%s became %+v", body, e)
		}
		if e.Kind == Comment && (e.Note.ID <= 0 || e.PR <= 0 || e.Note.PR != e.PR) {
			t.Fatalf("%s became %+v", body, e)
		}
	})
}

func TestVerify(t *testing.T) {
	body, one, two := []byte("body"), []byte("one"), []byte("two")
	cases := []struct {
		name      string
		secrets   [][]byte
		signature string
		want      bool
	}{
		{"fits", [][]byte{one}, Sign(one, body), true},
		{"first of two", [][]byte{one, two}, Sign(one, body), true},
		{"second of two", [][]byte{one, two}, Sign(two, body), true},
		{"upper case", [][]byte{one}, strings.ToUpper(Sign(one, body)), true},
		{"other secret", [][]byte{one}, Sign(two, body), false},
		{"no secrets", nil, Sign(nil, body), false},
		{"empty secret", [][]byte{{}}, Sign(nil, body), false},
		{"empty secret among others", [][]byte{one, {}}, Sign(nil, body), false},
		{"empty signature", [][]byte{one}, "", false},
		{"short", [][]byte{one}, Sign(one, body)[:60], false},
		{"not hex", [][]byte{one}, strings.Repeat("g", 64), false},
	}
	for _, c := range cases {
		if got := Verify(c.secrets, body, c.signature); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	// The value of another implementation: printf body | openssl dgst -sha256 -hmac one
	if got := Sign(one, body); got != knownSignature {
		t.Errorf("signature %s, want %s", got, knownSignature)
	}
}

// FuzzVerify checks that nothing but the signature itself fits.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("body"), "")
	f.Add([]byte("body"), knownSignature)
	f.Fuzz(func(t *testing.T, body []byte, signature string) {
		secret := []byte("a secret nobody knows")
		want := strings.ToLower(signature) == Sign(secret, body)
		if got := Verify([][]byte{secret}, body, signature); got != want {
			t.Fatalf("Verify(%q, %q) = %v", body, signature, got)
		}
	})
}

const knownSignature = "748b4f98dc74814295ce232a2b69b486fa0ac7b3a0f6b4bfb31e750af4075cc3"
