package drone

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/99designs/httpsignatures-go"
	"github.com/drone/drone-go/plugin/webhook"
)

// Skew is how far a webhook's Date may be from now.
const Skew = 5 * time.Minute

// Verify checks that a webhook's body is Drone's. The signature covers the Date and Digest headers only, so a
// captured one would vouch for any body: the digest must be the body's, the date recent, the signed headers
// exactly these two, and the algorithm HMAC-SHA256. drone-go's own handler (plugin/webhook) checks the signature only.
func Verify(secret string, header http.Header, body []byte, now time.Time) error {
	if secret == "" {
		return errors.New("no webhook secret is configured")
	}
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return fmt.Errorf("read Date: %w", err)
	}
	// Without this a captured hook is valid for ever.
	if d := now.Sub(date); d > Skew || d < -Skew {
		return fmt.Errorf("date is %s off", d.Round(time.Second))
	}
	sum := sha256.Sum256(body)
	want := "SHA-256=" + base64.StdEncoding.EncodeToString(sum[:])
	if !hmac.Equal([]byte(want), []byte(header.Get("Digest"))) {
		return errors.New("digest is not the body's")
	}
	// The library checks what the sender says was signed; whether that is enough is for us to say, below.
	request := &http.Request{Header: header}
	signature, err := httpsignatures.FromRequest(request)
	if err != nil {
		return fmt.Errorf("read Signature: %w", err)
	}
	if !strings.EqualFold(strings.Join(signature.Headers, " "), "date digest") {
		return errors.New("signature must cover date and digest")
	}
	if signature.Algorithm != httpsignatures.AlgorithmHmacSha256 {
		return errors.New("signature must be hmac-sha256")
	}
	if !signature.IsValid(secret, request) {
		return errors.New("signature does not fit")
	}
	return nil
}

// Hint reads the TESTME_ID of the build that a verified webhook is about; empty when it is about another.
func Hint(body []byte) (string, error) {
	var request webhook.Request
	if err := json.Unmarshal(body, &request); err != nil {
		return "", fmt.Errorf("decode webhook: %w", err)
	}
	if request.Build == nil {
		return "", nil
	}
	return request.Build.Params[ParamID], nil
}
