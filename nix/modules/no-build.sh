# Succeeds when no build runs on this host. A running build holds a flock on its file; a file alone means a crash.
locks=${CC_CI_LOCKS:-/run/lock/cc-ci /var/cache/cc-ci-runner/tmp/cc-ci-locks-*}
for directory in $locks; do
  for lock in "$directory"/*.lock; do
    [ -e "$lock" ] || continue
    if ! flock --nonblock --exclusive "$lock" true; then
      echo "a build is running ($(basename "$lock" .lock)): nothing is pruned now"
      exit 1
    fi
  done
done
