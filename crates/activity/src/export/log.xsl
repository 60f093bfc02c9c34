<xsl:stylesheet xmlns:xsl="http://www.w3.org/1999/XSL/Transform" xmlns:l="urn:flipside:log:1" xmlns=""
                version="1.0" id="flipside-log-style" xml:id="flipside-log-style" exclude-result-prefixes="l">
  <xsl:output method="html" encoding="UTF-8" doctype-system="about:legacy-compat"/>
  <xsl:template match="/">
    <html>
      <head>
        <title>Activity log of <xsl:value-of select="l:log/@system"/></title>
        <style>
          body { font: 14px/1.5 system-ui, sans-serif; margin: 1.5em; color: black; background: white; }
          details, p.leaf { margin: 0 0 0 1.5em; }
          summary { cursor: pointer; }
          .Success { color: green; } .Error { color: red; }
          .icon, time, pre { font-family: monospace; } time { color: #555; }
          pre { white-space: pre-wrap; max-height: 20em; overflow: auto; margin: 0 0 0 3em; }
          .advice { margin: 0 0 0 3em; }
        </style>
      </head>
      <body>
        <h1>Activity log of <xsl:value-of select="l:log/@system"/></h1>
        <p><xsl:value-of select="l:log/l:status/@configuration"/> |
          <xsl:value-of select="l:log/l:status/@hardware"/> |
          <xsl:value-of select="l:log/l:status/@upgrade"/> |
          <xsl:value-of select="l:log/l:status/@operational"/> |
          Partner: <xsl:value-of select="l:log/l:status/@partner"/></p>
        <xsl:for-each select="l:log/l:session">
          <p>Session <xsl:value-of select="@number"/> (<xsl:value-of select="@outcome"/>),
            configuration <xsl:value-of select="@configuration"/>,
            <xsl:value-of select="@began"/> to <xsl:value-of select="@ended"/></p>
        </xsl:for-each>
        <p>Saved <xsl:value-of select="l:log/@saved"/> by flipside <xsl:value-of select="l:log/@product-version"/></p>
        <xsl:apply-templates select="l:log/l:entries/l:entry"/>
      </body>
    </html>
  </xsl:template>
  <xsl:template match="l:entry">
    <details>
      <xsl:if test="@severity = 'Warning' or @severity = 'Error' or @severity = 'Pending'">
        <xsl:attribute name="open">open</xsl:attribute>
      </xsl:if>
      <summary class="{@severity}">
        <time><xsl:value-of select="@time"/></time>
        <span class="icon" title="{@severity}">
          <xsl:choose>
            <xsl:when test="@severity = 'Success'"> ✔ </xsl:when>
            <xsl:when test="@severity = 'Pending'"> … </xsl:when>
            <xsl:when test="@severity = 'Warning'"> ! </xsl:when>
            <xsl:when test="@severity = 'Error'"> ✘ </xsl:when>
            <xsl:otherwise> i </xsl:otherwise>
          </xsl:choose>
        </span>
        <xsl:value-of select="concat(@severity, ': ', l:text)"/>
        <xsl:if test="l:component"> [<xsl:value-of select="l:component"/>]</xsl:if>
      </summary>
      <xsl:if test="l:advice"><p class="advice">→ <xsl:value-of select="l:advice"/></p></xsl:if>
      <xsl:if test="l:detail"><pre><xsl:value-of select="l:detail"/></pre></xsl:if>
      <xsl:apply-templates select="l:entry"/>
    </details>
  </xsl:template>
</xsl:stylesheet>
