package proxy

import (
	"encoding/json"
	"io"
	"net/http"
)

// events passes on the events of the build's own objects. The stream is filtered here, because the daemon's label filter
// knows nothing of objects whose events carry no labels.
func events(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	return c.forward(func(resp *http.Response) error {
		if resp.StatusCode == http.StatusOK {
			resp.Body = &eventStream{p: c.p, from: resp.Body, decoder: json.NewDecoder(resp.Body)}
			resp.ContentLength = -1
			resp.Header.Del("Content-Length")
		}
		return nil
	})
}

// eventStream is an answer's body that leaves out the events of others. Read blocks until one of the build's own comes;
// the end of the call, which closes the connection to the daemon, ends that.
type eventStream struct {
	p       *Proxy
	from    io.ReadCloser
	decoder *json.Decoder
	rest    []byte
}

// event is what is looked at of an event; what is passed on is the daemon's own text of it.
type event struct {
	Type  string
	Actor struct {
		ID         string
		Attributes map[string]string
	}
}

// Read implements io.Reader.
func (s *eventStream) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		var line json.RawMessage
		if err := s.decoder.Decode(&line); err != nil {
			return 0, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, err
		}
		if s.p.ownEvent(e) {
			s.rest = append(line, '\n')
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (s *eventStream) Close() error { return s.from.Close() }

// ownEvent says whether an event is about something that the build made. Events of containers and images carry their
// labels; those of volumes, networks, services, secrets and configs only a name or an id, which the ledger knows. An event
// that comes before the ledger has its line, as that of a secret may, is lost to the client.
func (p *Proxy) ownEvent(e event) bool {
	if p.labelled(e.Actor.Attributes) || e.Type == string(image) && e.Actor.Attributes[LabelImage] == p.Build {
		return true
	}
	if e.Type == "network" || e.Type == "volume" {
		// Attaching is the event of one container on a network or volume that may be shared.
		if id := e.Actor.Attributes["container"]; id != "" {
			return p.Ledger.Knows(string(container), id)
		}
	}
	return p.Ledger.Knows(e.Type, e.Actor.ID)
}
