{{- /* Labels of every object. The argument is {root, component}. */ -}}
{{- define "finaiflow.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: finaiflow
{{ include "finaiflow.selector" .component }}
{{- end }}

{{- /* Labels that select the pods of a component, which is also the name of its objects. */ -}}
{{- define "finaiflow.selector" -}}
app.kubernetes.io/name: {{ . }}
{{- end }}

{{- /* Image reference. The argument is {root, image}. */ -}}
{{- define "finaiflow.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* The API server inside the cluster. */ -}}
{{- define "finaiflow.apiURL" -}}
http://finaiflow-api.{{ .Release.Namespace }}.svc:8000
{{- end }}

{{- /* Pod security of the level `restricted`. The argument is the user and group id. */ -}}
{{- define "finaiflow.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "finaiflow.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Where a component's pods may run. The argument is {root, values, component}. */ -}}
{{- define "finaiflow.placement" -}}
{{- $spread := dict "kubernetes.io/hostname" .values.spread.nodes "topology.kubernetes.io/zone" .values.spread.zones }}
{{- if or .values.spread.nodes .values.spread.zones }}
topologySpreadConstraints:
  {{- range $key, $when := $spread }}
  {{- if $when }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        {{- include "finaiflow.selector" $.component | nindent 8 }}
    # Pods that an update is about to stop do not count.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* {classes: [...]}: the configured database classes, or the development server as the only one. */ -}}
{{- define "finaiflow.databaseClasses" -}}
{{- if .Values.databaseClasses }}
classes:
  {{- toYaml .Values.databaseClasses | nindent 2 }}
{{- else if .Values.postgresql.enabled }}
{{- $endpoint := dict "host" (printf "finaiflow-postgres.%s.svc" .Release.Namespace) "port" 5432 "database" "finaiflow" "sslMode" "disable" }}
classes:
  - name: default
    servers:
      - name: primary
        capacity: 500
        adminSecretName: finaiflow-postgres-admin
        adminEndpoint:
          {{- toYaml $endpoint | nindent 10 }}
        tenantEndpoint:
          {{- toYaml $endpoint | nindent 10 }}
          pooled: false
{{- else }}
{{- fail "databaseClasses is empty: name your PostgreSQL servers there, or set postgresql.enabled=true for a development server" }}
{{- end }}
{{- end }}

{{- /* Network policy rules that both programs need. */ -}}
{{- define "finaiflow.egress" -}}
# names; the resolver may be a pod or on the node
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
# the Kubernetes API, whose address is not a pod's
- ports:
    {{- range .Values.networkPolicy.kubernetesApiPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{ include "finaiflow.databaseEgress" . }}
{{- end }}

{{- define "finaiflow.databaseEgress" -}}
# PostgreSQL
- ports:
    {{- $ports := list }}
    {{- range (include "finaiflow.databaseClasses" . | fromYaml).classes }}
    {{- range .servers }}
    {{- $ports = append $ports (int .adminEndpoint.port) }}
    {{- $ports = append $ports (int .tenantEndpoint.port) }}
    {{- end }}
    {{- end }}
    {{- range uniq $ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.databasePeers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
