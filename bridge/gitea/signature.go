package gitea

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// SignatureHeader carries the hex HMAC-SHA256 of the raw body, without a prefix. A hook without a secret has the
// header too, empty.
const SignatureHeader = "X-Gitea-Signature"

// Sign returns the signature that Gitea sends for the body. The bridge needs it only to play Gitea: doctor, replay,
// tests.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body) // a hash never returns an error
	return hex.EncodeToString(mac.Sum(nil))
}

// Verify reports whether one of the secrets signed the body. Every secret is tried in constant time, so neither
// the signature nor the number of the secret that fits can be learnt from timing. Empty secrets never fit.
func Verify(secrets [][]byte, body []byte, signature string) bool {
	given, err := hex.DecodeString(signature)
	if err != nil || len(given) != sha256.Size {
		return false
	}
	valid := false
	for _, secret := range secrets {
		if len(secret) == 0 {
			continue
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write(body) // a hash never returns an error
		if hmac.Equal(mac.Sum(nil), given) {
			valid = true
		}
	}
	return valid
}
