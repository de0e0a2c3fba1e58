# Brings one Co-op Cloud app to its described state; doing nothing when it is there already. Its caller sets name, domain,
# recipe, env_file (the described env file), secrets (NAME VERSION a line) and redeploy_flags.

fail() {
  echo "$name: $*" >&2
  exit 1
}

# Every credential first: a missing one must not leave a half-made app.
while read -r secret version; do
  [ -n "$secret" ] || continue
  [ -s "${CREDENTIALS_DIRECTORY:?}/$secret" ] || fail "credential $secret is empty; put the secret into its file, then start this unit again"
done <<<"$secrets"

state=$(docker info --format '{{.Swarm.LocalNodeState}}') || fail "Docker does not answer; look at docker.service"
[ "$state" = active ] || fail "this node's Swarm is $state; look at cc-ci-swarm-init.service"

[ -d "$ABRA_DIR/servers/default" ] || abra server add --local --no-input || fail "abra could not add this host as its server; its message is above"

# Docker's name for the app: abra turns dots into underscores.
stack=${domain//./_}

# Swarm's secrets cannot be changed, only replaced by one of another version.
remembered=$STATE_DIRECTORY/$name
mkdir -p "$remembered"
while read -r secret version; do
  [ -n "$secret" ] || continue
  file=$CREDENTIALS_DIRECTORY/$secret
  sum=$(sha256sum <"$file")
  known=$remembered/$secret.$version
  if docker secret inspect "${stack}_${secret}_${version}" >/dev/null 2>&1; then
    [ ! -e "$known" ] || [ "$(cat "$known")" = "$sum" ] ||
      fail "secret $secret has changed, but its version $version has not; set secrets.$secret.version to a new one"
  else
    install -D -m 0600 "$env_file" "$ABRA_DIR/servers/default/$domain.env"
    abra app secret insert "$domain" "$secret" "$version" "$file" --file --no-input >/dev/null ||
      fail "abra could not insert secret $secret"
    echo "$name: inserted secret $secret $version"
  fi
  printf '%s\n' "$sum" >"$known"
done <<<"$secrets"

# What is described, in one line; it is remembered once it is deployed.
wanted=$({ echo "$recipe"; cat "$env_file"; } | sha256sum)
running=$(docker service ls --filter "label=com.docker.stack.namespace=$stack" --format '{{.Name}} {{.Replicas}}')
if [ -n "$running" ] && [ "$(cat "$remembered/deployed" 2>/dev/null)" = "$wanted" ]; then
  if grep -q ' 0/[1-9]' <<<"$running"; then fail "is deployed, but a service has no running task: docker service ps --no-trunc ${stack}_app"; fi
  echo "$name: deployed as described"
  exit 0
fi

# abra writes the version it deployed into the env file, so it is written anew before each deployment.
install -D -m 0600 "$env_file" "$ABRA_DIR/servers/default/$domain.env"
flags=()
[ -z "$running" ] || read -r -a flags <<<"$redeploy_flags"
rm -f "$remembered/deployed"
abra app deploy "$domain" --no-input "${flags[@]}" || fail "abra could not deploy $recipe; its message is above"
printf '%s\n' "$wanted" >"$remembered/deployed"
echo "$name: deployed $recipe as $domain"
