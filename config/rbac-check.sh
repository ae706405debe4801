#!/bin/sh
# Asks the API server what the two programs may do, and compares with the table below. Needs an installed chart, whose
# tenantNamespaces hold `banks`, with backups.enabled, and a kubectl that may impersonate.
set -eu
failed=0

# yes|no ACCOUNT NAMESPACE VERB RESOURCE[/NAME] [SUBRESOURCE]; namespace `-` is a cluster-wide question.
while read -r want account namespace verb resource part; do
  case $want in '' | '#'*) continue ;; esac
  if [ "$namespace" = - ]; then where=--all-namespaces; else where=--namespace=$namespace; fi
  got=$(kubectl auth can-i "$verb" "$resource" "$where" --subresource="$part" \
    --as="system:serviceaccount:finaiflow-system:finaiflow-$account" 2>/dev/null </dev/null) || true
  if [ "$got" != "$want" ]; then
    echo "finaiflow-$account: $verb $resource${part:+/$part} in $namespace: ${got:-no answer} instead of $want" >&2
    failed=1
  fi
done <<'TABLE'
# Tenants: seen everywhere, never created, deleted or replaced; status by the operator alone.
yes operator - list tenants.finaiflow.io
yes operator - watch tenants.finaiflow.io
yes operator - patch tenants.finaiflow.io
yes operator - patch tenants.finaiflow.io status
no  operator - create tenants.finaiflow.io
no  operator - update tenants.finaiflow.io
no  operator - delete tenants.finaiflow.io
no  operator - adopt tenants.finaiflow.io
no  operator banks adopt tenants.finaiflow.io
yes api - watch tenants.finaiflow.io
no  api - patch tenants.finaiflow.io
no  api banks adopt tenants.finaiflow.io
no  api - patch tenants.finaiflow.io status

# Policies: seen everywhere, changed by nobody here; status by the operator alone.
yes operator - list ratelimitpolicies.finaiflow.io
yes operator - watch ratelimitpolicies.finaiflow.io
yes operator - patch ratelimitpolicies.finaiflow.io status
no  operator - create ratelimitpolicies.finaiflow.io
no  operator - patch ratelimitpolicies.finaiflow.io
no  operator - delete ratelimitpolicies.finaiflow.io
yes api - watch ratelimitpolicies.finaiflow.io
no  api - patch ratelimitpolicies.finaiflow.io
no  api - patch ratelimitpolicies.finaiflow.io status

# Backups: seen everywhere, never created, deleted or replaced; their jobs, keys and volumes are where the operator is, and
# what is stored is nobody's to delete.
yes operator - list backups.finaiflow.io
yes operator - patch backups.finaiflow.io
yes operator - patch backups.finaiflow.io status
no  operator - create backups.finaiflow.io
no  operator - delete backups.finaiflow.io
no  api - list backups.finaiflow.io
yes operator finaiflow-system create secrets
yes operator finaiflow-system patch cronjobs.batch
yes operator finaiflow-system delete cronjobs.batch
yes operator finaiflow-system watch jobs.batch
yes operator finaiflow-system watch pods
no  operator finaiflow-system create pods
no  operator finaiflow-system create pods exec
yes operator finaiflow-system create jobs.batch
yes operator finaiflow-system create persistentvolumeclaims
no  operator finaiflow-system delete persistentvolumeclaims
no  operator banks get persistentvolumeclaims
no  operator banks get pods
no  backup finaiflow-system get secrets
no  backup - list tenants.finaiflow.io

# Restores: the same.
yes operator - list restores.finaiflow.io
yes operator - patch restores.finaiflow.io
yes operator - patch restores.finaiflow.io status
no  operator - create restores.finaiflow.io
no  operator - delete restores.finaiflow.io
no  api - list restores.finaiflow.io

# Secrets: the operator in tenant namespaces, and in its own; the API server none by this chart.
yes operator banks get secrets
yes operator banks create secrets
yes operator banks patch secrets
yes operator banks delete secrets
no  operator - get secrets
no  operator - list secrets
no  operator default get secrets
no  operator kube-system list secrets
yes operator finaiflow-system get secrets/finaiflow-postgres-admin
no  operator finaiflow-system list secrets
no  operator finaiflow-system watch secrets
no  api banks get secrets
no  api banks list secrets
no  api finaiflow-system get secrets/finaiflow-postgres-admin

# Rights: handed on, never gained.
yes operator banks create roles.rbac.authorization.k8s.io
yes operator banks patch rolebindings.rbac.authorization.k8s.io
no  operator banks delete roles.rbac.authorization.k8s.io
no  operator banks bind roles.rbac.authorization.k8s.io
no  operator banks escalate roles.rbac.authorization.k8s.io
no  operator - create roles.rbac.authorization.k8s.io
no  operator - create clusterroles.rbac.authorization.k8s.io
no  operator - create clusterrolebindings.rbac.authorization.k8s.io
no  operator - impersonate users
no  operator - create serviceaccounts token
no  api banks create roles.rbac.authorization.k8s.io

# A tenant's other children.
yes operator banks patch cronjobs.batch
yes operator banks watch jobs.batch
no  operator banks delete cronjobs.batch
no  operator banks create jobs.batch
no  operator - patch cronjobs.batch
yes operator banks patch networkpolicies.networking.k8s.io
no  operator banks create pods
no  operator banks create pods exec
no  operator banks get configmaps

# Leases: written by the replicas, read by them and the operator, in their own namespace; one of its own says who leads.
yes api finaiflow-system create leases.coordination.k8s.io
yes api finaiflow-system patch leases.coordination.k8s.io
yes operator finaiflow-system watch leases.coordination.k8s.io
yes api finaiflow-system watch leases.coordination.k8s.io
no  api banks list leases.coordination.k8s.io
yes operator finaiflow-system create leases.coordination.k8s.io
yes operator finaiflow-system update leases.coordination.k8s.io/finaiflow-operator
no  operator finaiflow-system update leases.coordination.k8s.io
no  operator finaiflow-system patch leases.coordination.k8s.io
no  api kube-system patch leases.coordination.k8s.io

# Events, and what names this installation.
yes operator banks create events.events.k8s.io
yes operator kube-system get namespaces/kube-system
no  operator default get namespaces/default
no  operator - list namespaces

# The guards of what names a bank by its claim: seen, not touched.
yes operator - get validatingadmissionpolicies.admissionregistration.k8s.io/finaiflow-restore-source
yes operator - get validatingadmissionpolicies.admissionregistration.k8s.io/finaiflow-tenant-adoption
no  operator - get validatingadmissionpolicies.admissionregistration.k8s.io/another
no  operator - patch validatingadmissionpolicybindings.admissionregistration.k8s.io/finaiflow-tenant-adoption
TABLE
[ "$failed" = 0 ] && echo "the rights of both programs are as documented"
exit "$failed"
