package proxy

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// object is a JSON object of a call, kept generic: typed structs would drop the fields of older and newer APIs. Its
// methods answer 400 where a field has another type than the daemon expects. A nil object reads as an empty one.
type object map[string]any

// canon gives fields their proper spelling. The daemon decodes field names without regard to case, so a field that
// is there twice in different spellings would be read in a way that was not judged. (encoding/json folds case as
// strings.EqualFold does, the long s and the Kelvin sign included; of two spellings the last one in the text wins.)
func (o object) canon(names string) error {
	known := strings.Fields(names)
	for key, v := range o {
		for _, name := range known {
			if key == name || !strings.EqualFold(key, name) {
				continue
			}
			if _, twice := o[name]; twice {
				return &invalid{http.StatusBadRequest, "the call's body has the field " + name + " twice"}
			}
			delete(o, key)
			o[name] = v
		}
	}
	return nil
}

// only gives the known fields their proper spelling and, under the policy own, refuses those that are not known and
// not empty: newer daemons learn new ways out. Clients send many fields with their zero value, so empty ones may stay.
func (c *call) only(o object, known string) error {
	if err := o.canon(known); err != nil || !c.own() {
		return err
	}
	fields := strings.Fields(known)
	for name, v := range o {
		if !zero(v) && !slices.Contains(fields, name) {
			return unknownOption(name)
		}
	}
	return nil
}

// unknownOption refuses a field or a parameter of a call. Where a new daemon's harmless option meets it, it belongs on the
// list of known ones.
func unknownOption(name string) error {
	return &Refusal{"unknown-option", "the runner does not know the option " + name, varPolicy}
}

// object returns the object below a field, or nil when it is absent or null.
func (o object) object(name string) (object, error) {
	switch v := o[name].(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	}
	return nil, &invalid{http.StatusBadRequest, "the call's body has no object in the field " + name}
}

// make returns the object below a field and creates it if there is none, also in place of null. What is put into it
// becomes a part of o.
func (o object) make(name string) (object, error) {
	v, err := o.object(name)
	if v == nil && err == nil {
		v = object{}
		o[name] = map[string]any(v)
	}
	return v, err
}

// list returns the array below a field.
func (o object) list(name string) ([]any, error) {
	switch v := o[name].(type) {
	case nil:
		return nil, nil
	case []any:
		return v, nil
	}
	return nil, &invalid{http.StatusBadRequest, "the call's body has no array in the field " + name}
}

// objects returns the array of objects below a field.
func (o object) objects(name string) ([]object, error) {
	list, err := o.list(name)
	var out []object
	for _, v := range list {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, &invalid{http.StatusBadRequest, "the call's body has no array of objects in the field " + name}
		}
		out = append(out, m)
	}
	return out, err
}

// texts returns the array of strings below a field.
func (o object) texts(name string) ([]string, error) {
	list, err := o.list(name)
	var out []string
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, &invalid{http.StatusBadRequest, "the call's body has no array of strings in the field " + name}
		}
		out = append(out, s)
	}
	return out, err
}

// text returns the string below a field.
func (o object) text(name string) (string, error) {
	switch v := o[name].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", &invalid{http.StatusBadRequest, "the call's body has no string in the field " + name}
}

// label puts labels on the object's label map and drops the reserved ones that the build set itself. Without labels it
// only drops.
func (o object) label(labels map[string]string) error {
	if err := o.canon("Labels"); err != nil {
		return err
	}
	m, err := o.make("Labels")
	if err != nil {
		return err
	}
	// Also such as this socket put there: the client may have read them off another object.
	for k := range m {
		if strings.HasPrefix(k, LabelPrefix) {
			delete(m, k)
		}
	}
	for k, v := range labels {
		m[k] = v
	}
	return nil
}

// zero says whether a value is what its absence means to the daemon. That does not hold for lists which the daemon fills
// when they are null, such as MaskedPaths: those are judged by themselves. A number like 0.0 or -0 counts as set.
func zero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case json.Number:
		return v == "0"
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, e := range v {
			if !zero(e) {
				return false
			}
		}
		return true
	}
	return false
}
