package process

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// identity is whom a command runs as.
type identity struct {
	UID, GID int
	// Groups are the supplementary groups; root's is never among them. They must be set even if there are none: who only
	// changes uid and gid keeps the groups of the runner.
	Groups []int
}

// users is who the steps of builds may run as: one user for all, or one uid of a range for each build. Only a range keeps
// builds apart that run at once, for a user may signal all of its own processes.
type users struct {
	shared      *identity
	first, last int // the range, if shared is nil
}

// CheckUser says, without touching the host, whether [Open] would take this Config.User with these WithoutGroups; its
// error is a [*UserError].
func CheckUser(text string, withoutGroups ...int) error {
	_, err := usersOf(text, withoutGroups)
	return err
}

// usersOf is who the steps may run as, if this process can make them run so.
func usersOf(text string, withoutGroups []int) (*users, error) {
	who, err := parseUser(text)
	if err == nil && who != nil {
		err = who.leave(withoutGroups)
	}
	if err != nil {
		return nil, &UserError{err}
	}
	if who != nil && os.Geteuid() != 0 {
		return nil, &UserError{fmt.Errorf("user %q: only a runner that is root can run steps as another user", text)}
	}
	return who, nil
}

// maxUID is the greatest uid there is. The kernel takes the lower 32 bits of a greater number, which may be root's zero,
// and the one between as "leave the user as it is" (setresuid(2)).
const maxUID = math.MaxUint32 - 1

// parseUser reads a name, a uid, or a range FIRST-LAST of uids. Nothing means the runner's own user and returns nil. A name
// may hold a dash too, so what is no range of two numbers is looked up.
func parseUser(text string) (*users, error) {
	if text == "" {
		return nil, nil
	}
	if first, last, ok := strings.Cut(text, "-"); ok {
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 == nil && err2 == nil {
			if from < 1 || to < from || to-from > 65535 || int64(to) > maxUID {
				return nil, fmt.Errorf("user %q: a range is FIRST-LAST, at most 65536 uids above 0, the last of them not below "+
					"the first nor above %d", text, int64(maxUID))
			}
			return &users{first: from, last: to}, nil
		}
	}
	who, err := lookupUser(text)
	if err != nil {
		return nil, err
	}
	return &users{shared: who}, nil
}

// lookupUser finds a user's id and own groups. A bare uid without an entry has a group of the same number, as the uids
// of a range do: nobody has to make users for builds.
func lookupUser(text string) (*identity, error) {
	uid, notNumber := strconv.Atoi(text)
	if notNumber == nil && (uid < 0 || int64(uid) > maxUID) { // before the lookup, whose C library takes 32 bits as well
		return nil, fmt.Errorf("user %q: give a uid between 1 and %d", text, int64(maxUID))
	}
	entry, err := user.Lookup(text)
	if err != nil && notNumber == nil {
		entry, err = user.LookupId(text)
		if errors.As(err, new(user.UnknownUserIdError)) {
			if uid == 0 {
				return nil, rootRefused(text)
			}
			return &identity{UID: uid, GID: uid, Groups: []int{uid}}, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", text, err)
	}
	names, err := entry.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %q: %w", text, err)
	}
	who := &identity{}
	if who.UID, err = strconv.Atoi(entry.Uid); err != nil {
		return nil, fmt.Errorf("user %q: %w", text, err)
	}
	if who.UID == 0 {
		return nil, rootRefused(text)
	}
	if who.GID, err = strconv.Atoi(entry.Gid); err != nil {
		return nil, fmt.Errorf("user %q: %w", text, err)
	}
	for _, name := range names {
		gid, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("groups of user %q: %w", text, err)
		}
		if gid != 0 && !slices.Contains(who.Groups, gid) {
			who.Groups = append(who.Groups, gid)
		}
	}
	if who.GID == 0 {
		return nil, fmt.Errorf("user %q has root's group as its own: name one that has not", text)
	}
	return who, nil
}

// leave takes the users out of groups whose rights steps must not have. A uid of a range has the group of its number.
func (u *users) leave(groups []int) error {
	for _, gid := range groups {
		who := u.shared
		if who != nil && who.GID == gid || who == nil && u.first <= gid && gid <= u.last {
			return fmt.Errorf("group %d gives its members the host's Docker, and a user that steps may run as has it as its own: "+
				"name users that have not", gid)
		}
		if who != nil {
			who.Groups = slices.DeleteFunc(who.Groups, func(own int) bool { return own == gid })
		}
	}
	return nil
}

func rootRefused(text string) error {
	return fmt.Errorf("user %q is root: name a user without its rights, or leave the setting empty", text)
}
