package bridge

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits holds token buckets by key. Full buckets are forgotten, so that memory follows the busy keys only.
type limits[K comparable] struct {
	every time.Duration
	burst int

	mu      sync.Mutex
	buckets map[K]*rate.Limiter
}

// maxBuckets is when idle buckets are swept out.
const maxBuckets = 4096

// newLimits makes buckets that hold burst tokens and get another one in each interval.
func newLimits[K comparable](burst int, every time.Duration) *limits[K] {
	return &limits[K]{every: every, burst: burst, buckets: map[K]*rate.Limiter{}}
}

// take reports whether the key's bucket still held a token.
func (l *limits[K]) take(key K, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.buckets[key]
	// Users come from signed bodies, so an attacker can bring at most as many keys as the forge has accounts.
	if bucket == nil {
		if len(l.buckets) >= maxBuckets {
			l.sweep(now)
		}
		bucket = rate.NewLimiter(rate.Every(l.every), l.burst)
		l.buckets[key] = bucket
	}
	return bucket.AllowN(now, 1)
}

// sweep forgets buckets that are full again: a new one would be the same. The caller holds the lock.
func (l *limits[K]) sweep(now time.Time) {
	for key, bucket := range l.buckets {
		if bucket.TokensAt(now) >= float64(l.burst) {
			delete(l.buckets, key)
		}
	}
}
