{{/* What a Deployment needs for Doorward in front. In a chart that has this one as the dependency `doorward`:
     {{ include "doorward.sidecar" .Subcharts.doorward | nindent 6 }} and so on; templates/deployment.yaml has them all. */}}

{{- define "doorward.name" -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}-doorward
{{- end }}

{{/* For the pods: what the Service, the NetworkPolicy and the ServiceMonitor select. */}}
{{- define "doorward.labels" -}}
doorward: {{ .Release.Name | quote }}
{{- end }}

{{/* Under initContainers. */}}
{{- define "doorward.sidecar" -}}
- name: doorward
  image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args: [run, --config, /etc/doorward/config/doorward.yaml]
  ports:
  - { name: grpc-tls, containerPort: 8443 }
  - { name: operations, containerPort: 9902 }
  # The app is started when this passes, so it must never wait for the app.
  startupProbe:
    httpGet: { path: /startupz, port: operations }
    periodSeconds: 1
    failureThreshold: 30
  # Counts for the pod: the app behind answers, the keys are there, no drain has begun.
  readinessProbe:
    httpGet: { path: /readyz, port: operations }
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 2
  # True as long as the process works, also while it drains.
  livenessProbe:
    httpGet: { path: /livez, port: operations }
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  lifecycle:
    preStop:
      exec: { command: [doorward, drain, --config, /etc/doorward/config/doorward.yaml] }
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities: { drop: [ALL] }
    seccompProfile: { type: RuntimeDefault }
  resources: {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
  - { name: doorward-config, mountPath: /etc/doorward/config, readOnly: true }
  - { name: doorward-tls, mountPath: /etc/doorward/tls, readOnly: true }
  - { name: doorward-api-keys, mountPath: /etc/doorward/api-keys, readOnly: true }
  {{- if .Values.clusterKeys }}
  - { name: doorward-cluster, mountPath: /var/run/secrets/doorward/cluster, readOnly: true }
  {{- end }}
{{- end }}

{{/* Under volumes. 288 is 0440: their files are for the group 65532, which is the pod's securityContext.fsGroup. */}}
{{- define "doorward.volumes" -}}
- name: doorward-config
  configMap: { name: {{ include "doorward.name" . | quote }} }
- name: doorward-tls
  secret: { secretName: {{ .Values.tlsSecret | quote }}, defaultMode: 288 }
- name: doorward-api-keys
  secret: { secretName: {{ .Values.apiKeysSecret | quote }}, defaultMode: 288 }
{{- if .Values.clusterKeys }}
# What the API server wants before it shows its keys, with which service-account tokens are verified.
- name: doorward-cluster
  projected:
    defaultMode: 288
    sources:
    - serviceAccountToken: { path: token, expirationSeconds: 3600 }
    - configMap:
        name: kube-root-ca.crt
        items:
        - { key: ca.crt, path: ca.crt }
{{- end }}
{{- end }}

{{/* The app's own lifecycle: it answers until Doorward has sent its clients elsewhere. */}}
{{- define "doorward.lifecycle" -}}
preStop:
  sleep: { seconds: {{ .Values.preStopSeconds }} }
{{- end }}
